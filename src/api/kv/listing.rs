//! Listings: one page, and a stream of all of them.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use tonic::{Request, Response, Status};

use super::KvService;
use crate::api::convert;
use crate::api::convert::strong as convert_strong;
use crate::node::listing::{ListRequest, ListedRow, Listing};
use crate::node::request::{RequestError, RequestOptions};
use crate::node::service::Node;
use crate::proto::v1;
use crate::proto::v1::listed_row::Data;
use crate::protocol::listing::LIST_ROWS_MAX;

/// The pages of a listing. Each is made when it is taken, so that a slow client holds up nobody and
/// nothing is kept for it.
pub(crate) type Pages = Pin<Box<dyn Stream<Item = Result<v1::ListResponse, Status>> + Send>>;

impl KvService {
    pub(super) async fn serve_list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let (request, options) = self.asked(request)?;
        Ok(Response::new(page(self.node.list(request, options).await?)))
    }

    pub(super) fn serve_scan(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<Pages>, Status> {
        let (request, options) = self.asked(request)?;
        // The client's deadline is that of all pages, and is kept by what carries the stream.
        let options = RequestOptions { timeout: None, ..options };
        let (node, rows_left) = (Arc::clone(&self.node), request.limit);
        let scan = Scan { node, request, options, rows_left };
        let next = |scan: Option<Scan>| async {
            match scan {
                Some(scan) => Ok(Some(scan.next().await.map_err(Status::from)?)),
                None => Ok(None),
            }
        };
        Ok(Response::new(Box::pin(try_unfold(Some(scan), next))))
    }

    fn asked(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<(ListRequest, RequestOptions), Status> {
        let timeout = self.timeout(&request)?;
        let asked = request.into_inner();
        let options = convert::read_options(asked.level, asked.r, "", timeout)?;
        let v1::ListRequest { keyspace, consistency, max_staleness_ms, .. } = asked;
        let options = convert_strong::read(options, keyspace, consistency, max_staleness_ms)?;
        let request = ListRequest {
            prefix: Bytes::from(asked.prefix),
            limit: (asked.limit > 0).then_some(asked.limit),
            cursor: (!asked.cursor.is_empty()).then_some(asked.cursor),
            keys_only: asked.keys_only,
        };
        Ok((request, options))
    }
}

/// A stream of pages that has come so far.
struct Scan {
    node: Arc<Node>,
    request: ListRequest,
    options: RequestOptions,
    /// Rows that are still wanted; `None` for all.
    rows_left: Option<u32>,
}

impl Scan {
    /// The next page, and what follows it.
    async fn next(self) -> Result<(v1::ListResponse, Option<Scan>), RequestError> {
        let limit = self.rows_left.map_or(LIST_ROWS_MAX, |left| left.min(LIST_ROWS_MAX));
        let Scan { node, request, options, rows_left } = self;
        let request = ListRequest { limit: Some(limit), ..request };
        let listing = node.list(request.clone(), options.clone()).await?;
        let rows = u32::try_from(listing.rows.len()).unwrap_or(u32::MAX);
        let rows_left = rows_left.map(|left| left.saturating_sub(rows));
        let cursor = listing.cursor.clone().filter(|_| rows_left != Some(0));
        let rest = cursor.map(|cursor| {
            let request = ListRequest { cursor: Some(cursor), ..request };
            Scan { node, request, options, rows_left }
        });
        Ok((page(listing), rest))
    }
}

fn page(listing: Listing) -> v1::ListResponse {
    let rows = listing.rows.into_iter().map(row).collect();
    v1::ListResponse { rows, cursor: listing.cursor.unwrap_or_default() }
}

fn row(row: ListedRow) -> v1::ListedRow {
    let data = row.value.map(|value| match convert::text_or_bytes(value) {
        Ok(text) => Data::Value(text),
        Err(bytes) => Data::ValueBytes(bytes),
    });
    v1::ListedRow {
        key: row.key.to_string(),
        data,
        version: row.version.to_string(),
        expires_at_ms: row.expires_at.map(|end| end.0),
        siblings: row.siblings,
    }
}
