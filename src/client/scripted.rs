//! A data service for tests that script some of its calls: whatever is not scripted is refused.
//!
//! A new call of the protocol is one line here, and none in the tests that do not ask for it.

use futures_util::stream::Empty;
use tonic::{Request, Response, Status};

use crate::proto::v1;
use crate::proto::v1::kv_server::Kv;

/// Serves a script.
#[derive(Debug)]
pub(crate) struct Scripted<S>(pub(crate) S);

fn refusal() -> Status {
    Status::unimplemented("not scripted")
}

/// Makes the trait and the service of the calls that have one answer; those that have a stream of
/// them are never scripted. The whole is in one macro, for `async_trait` does not see into others.
macro_rules! scripted {
    ($($call:ident: $request:ident => $answer:ident;)*) => {
        /// What a test answers to calls.
        #[tonic::async_trait]
        pub(crate) trait Script: Send + Sync + 'static {$(
            async fn $call(
                &self,
                _: Request<v1::$request>,
            ) -> Result<Response<v1::$answer>, Status> {
                Err(refusal())
            }
        )*}

        #[tonic::async_trait]
        impl<S: Script> Kv for Scripted<S> {
            type ScanStream = Empty<Result<v1::ListResponse, Status>>;
            type WatchStream = Empty<Result<v1::WatchResponse, Status>>;

            async fn scan(
                &self,
                _: Request<v1::ListRequest>,
            ) -> Result<Response<Self::ScanStream>, Status> {
                Err(refusal())
            }

            async fn watch(
                &self,
                _: Request<v1::WatchRequest>,
            ) -> Result<Response<Self::WatchStream>, Status> {
                Err(refusal())
            }

            $(async fn $call(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<v1::$answer>, Status> {
                self.0.$call(request).await
            })*
        }
    };
}

scripted! {
    put: PutRequest => PutResponse;
    get: GetRequest => GetResponse;
    delete: DeleteRequest => DeleteResponse;
    list: ListRequest => ListResponse;
    batch_get: BatchGetRequest => BatchGetResponse;
    batch_put: BatchPutRequest => BatchPutResponse;
    increment: IncrementRequest => IncrementResponse;
    update_set: UpdateSetRequest => UpdateSetResponse;
    append: AppendRequest => AppendResponse;
    compare_and_set: CompareAndSetRequest => CompareAndSetResponse;
    transact: TransactRequest => TransactResponse;
}
