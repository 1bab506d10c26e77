//! One page of a listing: through the partitions by number, each by its own replicas or its group.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::node::keyspace_limits::cost_of;
use crate::node::request::{RequestError, RequestOptions};
use crate::node::service::{Attached, Node};
use crate::node::strong::Target;
use crate::protocol::listing::cursor::Cursor;
use crate::protocol::listing::walk::{Counted, Walk, Wanted};
use crate::protocol::listing::{LIST_PAGE_BYTES_MAX, LIST_ROWS, LIST_ROWS_MAX, Position};
use crate::protocol::message::ListRange;
use crate::protocol::version::dvv::Siblings;
use crate::protocol::version::merging::Reading;
use crate::types::{Expiry, Key, KeyspaceId, Merge, Moment, Record, Version};

/// What is to be listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Only keys that begin with this; empty for all.
    pub prefix: Bytes,
    /// So many rows at most, from 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// Where the page before ended; absent for the first one.
    pub cursor: Option<String>,
    /// Whether values are left out.
    pub keys_only: bool,
}

/// One page. It may have fewer rows than were asked for, or none, though more follow: it ends also
/// at 1 MiB, and when half of the request's time is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Keys that have a value: by partition, and within one in the order of their bytes.
    pub rows: Vec<ListedRow>,
    /// What the next page is asked for with; `None` when this was the last.
    pub cursor: Option<String>,
}

/// A key that has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRow {
    /// The key.
    pub key: Key,
    /// Its value; `None` when only keys were asked for.
    pub value: Option<Bytes>,
    /// The version of the value.
    pub version: Version,
    /// When the value ends by itself.
    pub expires_at: Option<Expiry>,
    /// How many values the key has, where there are several; the one above was written last.
    pub siblings: Option<u32>,
}

impl Counted for ListedRow {
    fn key(&self) -> &Key {
        &self.key
    }

    fn cost_bytes(&self) -> usize {
        const ROW_OVERHEAD_BYTES: usize = 64;
        self.key.0.len() + self.value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD_BYTES
    }
}

/// What a partition has: its rows, and up to where these are all.
type Page = Result<(Vec<ListedRow>, Option<Key>), RequestError>;

/// What all partitions of a page are asked with.
struct Asked<'r> {
    attached: &'r Attached,
    target: &'r Target,
    request: &'r ListRequest,
    options: &'r RequestOptions,
    deadline: Moment,
}

impl Node {
    /// One page of the keys of a keyspace that have a value.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] naming `limit`, `prefix` or `cursor`; else any error of a read, if
    /// nothing was listed by then.
    pub async fn list(
        &self,
        request: ListRequest,
        options: RequestOptions,
    ) -> Result<Listing, RequestError> {
        let began = self.local.env.now();
        let outcome = self.list_page(&request, &options, began).await;
        self.finish(&self.metrics().list, began, outcome)
    }

    async fn list_page(
        &self,
        request: &ListRequest,
        options: &RequestOptions,
        began: Moment,
    ) -> Result<Listing, RequestError> {
        let attached = self.attached()?;
        let limit = check_limit(request.limit)?;
        let key_bytes_max = self.config.limits.key_bytes_max;
        if request.prefix.len() > key_bytes_max {
            let (limit, got) = ("key_bytes_max", request.prefix.len());
            return Err(RequestError::TooLarge { limit, max: key_bytes_max, got });
        }
        // Its time is counted from when it began, so that the wait for the name is taken off.
        let named = self.target(attached, options).await?;
        let target = named.found;
        let _place = attached.lists.admit()?;
        let keyspace = target.keyspace();
        let partitions = attached.topology.load().ring.partitions();
        let begun = begun(request, keyspace, partitions)?;
        let prefix = Key(request.prefix.clone());
        self.admit(keyspace, std::iter::empty(), cost_of(&prefix, 0), options)?;
        let limits = &self.config.limits;
        let timeout = options.timeout.unwrap_or(limits.request_timeout);
        let timeout = timeout.min(limits.request_timeout_max);
        let asked =
            Asked { attached, target: &target, request, options, deadline: began + timeout };
        let walk = Walk::new(begun, partitions, limit, LIST_PAGE_BYTES_MAX);
        let (rows, next) = self.walk(walk, &asked, began + timeout / 2).await?;
        self.charge_value(keyspace, rows.iter().map(Counted::cost_bytes).sum());
        let cursor = |next| Cursor::new(keyspace, &request.prefix, next).to_string();
        Ok(Listing { rows, cursor: next.map(cursor) })
    }

    /// Asks partition after partition until the page is full. What there is by `enough`, or before
    /// a partition that fails, is a page, too.
    async fn walk(
        &self,
        mut walk: Walk<ListedRow>,
        asked: &Asked<'_>,
        enough: Moment,
    ) -> Result<(Vec<ListedRow>, Option<Position>), RequestError> {
        let mut moved = false;
        loop {
            let wanted = walk.wanted();
            if wanted.is_empty() || (moved && self.local.env.now() >= enough) {
                return Ok(walk.finish());
            }
            let pages = wanted.into_iter().map(|wanted| self.partition_page(asked, wanted));
            let mut through = true;
            for page in join_all(pages).await {
                let (rows, reached) = match page {
                    Ok(page) => page,
                    Err(_) if moved => return Ok(walk.finish()),
                    Err(error) => return Err(error),
                };
                moved = true;
                through = walk.take(rows, reached);
                if !through {
                    break;
                }
            }
            if through {
                walk.goes_on();
            }
        }
    }

    async fn partition_page(&self, asked: &Asked<'_>, wanted: Wanted) -> Page {
        let Wanted { position: Position { partition, after }, rows_max, bytes_max } = wanted;
        let (prefix, keys_only) = (asked.request.prefix.clone(), asked.request.keys_only);
        let merge = asked.target.keyspace().merge();
        // Whether anything is left is known only to who has joined the rows.
        let range_keys_only = keys_only && !merge.joins();
        let range = ListRange { prefix, after, rows_max, bytes_max, keys_only: range_keys_only };
        let (rows, reached) = match asked.target {
            Target::Quorum(keyspace) => {
                let place = (*keyspace, partition);
                let how = (asked.options, asked.deadline);
                let lists = &asked.attached.lists;
                let merged = asked.attached.coordinator.list(lists, place, range, how).await?;
                self.mend(asked, *keyspace, merged.stale);
                (merged.rows, merged.reached)
            }
            Target::Strong(keyspace) => {
                let topology = asked.attached.topology.load();
                let strong = self.strong(asked.attached, &topology.ring, keyspace);
                let page = strong.list(partition, range, asked.options, asked.deadline).await?;
                (page.rows, page.reached)
            }
        };
        let wall_ms = self.local.clock.wall_ms();
        let row = |(key, record)| listed(key, record, (merge, keys_only), wall_ms);
        Ok((rows.into_iter().filter_map(row).collect(), reached))
    }

    /// Has stale replicas repaired, behind the answer.
    fn mend(&self, asked: &Asked<'_>, keyspace: KeyspaceId, stale: BTreeSet<Key>) {
        if stale.is_empty() {
            return;
        }
        self.metrics().listed_stale.inc_by(stale.len() as u64);
        let coordinator = Arc::clone(&asked.attached.coordinator);
        let options = asked.options.clone();
        self.tasks.spawn(async move { coordinator.read_again(keyspace, stale, &options).await });
    }
}

/// The row as a client sees it, unless the key has no value.
fn listed(
    key: Key,
    record: Record,
    (merge, keys_only): (Merge, bool),
    wall_ms: u64,
) -> Option<ListedRow> {
    if record.is_expired(wall_ms) {
        return None;
    }
    let joined = merge.joins().then(|| Siblings::of_record(&record).ok()).flatten();
    let Record { version, value, expires_at } = record;
    let Reading { value, siblings, .. } = match joined {
        None => Reading { value, ..Reading::default() },
        Some(row) => Reading::of(&row, merge),
    };
    let value = value.map(|value| (!keys_only).then_some(value))?;
    let siblings = Some(siblings.len() as u32).filter(|siblings| *siblings > 1);
    Some(ListedRow { key, value, version, expires_at, siblings })
}

fn check_limit(limit: Option<u32>) -> Result<u32, RequestError> {
    match limit {
        None => Ok(LIST_ROWS),
        Some(limit) if (1..=LIST_ROWS_MAX).contains(&limit) => Ok(limit),
        Some(limit) => {
            let problem = format!("is {limit}; a page has from 1 to {LIST_ROWS_MAX} rows");
            Err(RequestError::Invalid { field: "limit", problem })
        }
    }
}

fn begun(
    request: &ListRequest,
    keyspace: KeyspaceId,
    partitions: u32,
) -> Result<Position, RequestError> {
    let Some(cursor) = &request.cursor else { return Ok(Position::first()) };
    Cursor::resume(cursor, keyspace, &request.prefix, partitions)
        .map_err(|error| RequestError::Invalid { field: "cursor", problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, Timestamp};

    #[test]
    fn a_limit_is_from_one_to_a_thousand() {
        assert_eq!(check_limit(None), Ok(100));
        assert_eq!(check_limit(Some(1000)), Ok(1000));
        for limit in [0, 1001] {
            let error = check_limit(Some(limit)).expect_err("a limit").to_string();
            assert_eq!(error, format!("limit: is {limit}; a page has from 1 to 1000 rows"));
        }
    }

    #[test]
    fn what_has_no_value_is_not_listed() {
        let version = Version { timestamp: Timestamp(1), incarnation: Incarnation(1) };
        let value = Record::new(version, Some(Bytes::from_static(b"v")));
        let show = |record: Record, keys_only| {
            listed(Key::from("k"), record, (Merge::Lww, keys_only), 100)
        };
        let shown = |record, keys_only| show(record, keys_only).map(|row| row.value.is_some());
        assert_eq!(shown(value.clone(), false), Some(true));
        assert_eq!(shown(value.clone(), true), Some(false));
        assert_eq!(shown(Record::new(version, None), false), None);
        assert_eq!(shown(value.clone().expiring(Some(Expiry(100))), true), None);
        assert_eq!(shown(value.expiring(Some(Expiry(101))), true), Some(false));
    }
}
