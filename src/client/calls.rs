//! The requests of the protocol, as one kind of thing that can be sent, repeated and numbered.

use std::future::Future;

use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::v1;
use crate::proto::v1::admin_client::AdminClient;
use crate::proto::v1::kv_client::KvClient;

/// Bytes of an answer: above the largest value that a node can be configured for.
pub(crate) const ANSWER_BYTES_MAX: usize = 512 << 20;

/// A request.
pub(crate) trait Call: Clone + Send + Sync + 'static {
    /// Its answer.
    type Answer: Send + 'static;

    /// Puts a write of a strong keyspace under a session.
    fn number(&mut self, _session: v1::Session) {}

    /// What the answer says of the guarantee that held.
    fn receipt(_answer: &Self::Answer) -> Option<&v1::Receipt> {
        None
    }

    /// Sends it.
    fn send(
        channel: Channel,
        request: Request<Self>,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Status>> + Send;
}

macro_rules! number_by_field {
    (session) => {
        fn number(&mut self, session: v1::Session) {
            self.session = Some(session);
        }
    };
    () => {};
}

macro_rules! kv_calls {
    ($($request:ident => $answer:ident by $method:ident $($session:ident)?;)*) => {$(
        impl Call for v1::$request {
            type Answer = v1::$answer;

            number_by_field!($($session)?);

            fn receipt(answer: &Self::Answer) -> Option<&v1::Receipt> {
                answer.receipt.as_ref()
            }

            async fn send(
                channel: Channel,
                request: Request<Self>,
            ) -> Result<Response<Self::Answer>, Status> {
                let client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
                client.max_encoding_message_size(usize::MAX).$method(request).await
            }
        }
    )*};
}

macro_rules! admin_calls {
    ($($request:ident => $answer:ident by $method:ident;)*) => {$(
        impl Call for v1::$request {
            type Answer = v1::$answer;

            async fn send(
                channel: Channel,
                request: Request<Self>,
            ) -> Result<Response<Self::Answer>, Status> {
                let client = AdminClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
                { client }.$method(request).await
            }
        }
    )*};
}

kv_calls! {
    PutRequest => PutResponse by put session;
    GetRequest => GetResponse by get;
    DeleteRequest => DeleteResponse by delete session;
    IncrementRequest => IncrementResponse by increment;
    UpdateSetRequest => UpdateSetResponse by update_set;
    AppendRequest => AppendResponse by append session;
    CompareAndSetRequest => CompareAndSetResponse by compare_and_set session;
    TransactRequest => TransactResponse by transact session;
}

impl Call for v1::ListRequest {
    type Answer = v1::ListResponse;

    async fn send(
        channel: Channel,
        request: Request<Self>,
    ) -> Result<Response<Self::Answer>, Status> {
        let client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        { client }.list(request).await
    }
}

impl Call for v1::WatchRequest {
    type Answer = Streaming<v1::WatchResponse>;

    async fn send(
        channel: Channel,
        request: Request<Self>,
    ) -> Result<Response<Self::Answer>, Status> {
        let client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        { client }.watch(request).await
    }
}

admin_calls! {
    StatusRequest => StatusResponse by status;
    ListKeyspacesRequest => ListKeyspacesResponse by list_keyspaces;
    CreateKeyspaceRequest => KeyspaceResponse by create_keyspace;
    AlterKeyspaceRequest => KeyspaceResponse by alter_keyspace;
    DropKeyspaceRequest => DropKeyspaceResponse by drop_keyspace;
}
