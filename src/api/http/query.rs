//! Query parameters of requests for keys: how one request wants to be served.
//!
//! A parameter that a request does not know is refused, since ignoring a misspelt `w=3` would
//! answer with a guarantee that nobody asked for.

use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use bytes::Bytes;

use crate::api::convert::{self, invalid, strong};
use crate::config::{Limits, units};
use crate::node::listing::ListRequest;
use crate::node::request::{RequestError, RequestOptions};
use crate::proto::v1;
use crate::protocol::listing::LIST_ROWS_MAX;

/// What a request does; each has its own parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// GET and HEAD.
    Read,
    /// PUT.
    Put,
    /// DELETE, and POST of a transaction.
    Write,
    /// POST to a key that adds to the end of a value.
    Append,
    /// POST to a key that adds to a counter.
    Increment,
    /// POST to a key that changes a set.
    UpdateSet,
    /// GET of a keyspace.
    List,
}

/// What a listing takes that a read of a key does not.
const LISTING: [&str; 4] = ["prefix", "limit", "cursor", "keys_only"];

/// Names of a POST to a key, which says by `op` what is to be done.
const OPERATIONS: [(&str, Operation); 3] = [
    ("append", Operation::Append),
    ("increment", Operation::Increment),
    ("update", Operation::UpdateSet),
];

const OP: &str = "op";
const BY: &str = "by";

const WATCH: &str = "watch";
const PREFIX: &str = "prefix";
const FROM: &str = "from";

impl Operation {
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Operation::Read => {
                &["r", "level", "timeout", "context", "one", "consistency", "max_staleness"]
            }
            Operation::Put => &["w", "level", "timeout", "sloppy", "context", "ttl"],
            Operation::Write => &["w", "level", "timeout", "sloppy", "context"],
            Operation::List => &[
                "prefix",
                "limit",
                "cursor",
                "keys_only",
                "r",
                "level",
                "timeout",
                "consistency",
                "max_staleness",
            ],
            Operation::Append | Operation::UpdateSet => {
                &["op", "w", "level", "timeout", "sloppy", "context"]
            }
            Operation::Increment => &["op", "by", "w", "level", "timeout", "sloppy", "context"],
        }
    }

    fn described(self) -> String {
        let who = match self {
            Operation::Read => "a read",
            Operation::Put => "a PUT",
            Operation::Write => "a write",
            Operation::List => "a listing",
            Operation::Append => "an append",
            Operation::Increment => "an increment",
            Operation::UpdateSet => "an update of a set",
        };
        format!("{who} takes {}", self.parameters().join(", "))
    }
}

/// The options that a query asks for. An explicit `r` or `w` wins over a level.
///
/// # Errors
/// [`RequestError::Invalid`] naming the parameter, what was sent and what would be right.
pub(crate) fn options(
    operation: Operation,
    uri: &Uri,
    limits: &Limits,
) -> Result<RequestOptions, RequestError> {
    let mut asked = Asked::default();
    let mut seen: Vec<&'static str> = Vec::new();
    for (name, value) in pairs(uri)? {
        let Some(known) = operation.parameters().iter().find(|known| **known == name) else {
            let right = operation.described();
            return Err(invalid("query", format!("{name:?} is not a parameter here; {right}")));
        };
        if seen.contains(known) {
            return Err(invalid(known, "is given twice"));
        }
        seen.push(known);
        asked.set(known, &value, limits)?;
    }
    asked.into_options()
}

/// What a POST to a key says that it does.
///
/// # Errors
/// [`RequestError::Invalid`] naming `op`.
pub(crate) fn posted(uri: &Uri) -> Result<Operation, RequestError> {
    let right = OPERATIONS.map(|(name, _)| name).join(", ");
    let named = pairs(uri)?.into_iter().find(|(name, _)| name == OP);
    let missing = || invalid(OP, format!("is absent; a POST to a key takes one of {right}"));
    let (_, value) = named.ok_or_else(missing)?;
    let found = OPERATIONS.into_iter().find(|(name, _)| *name == value);
    let unknown = || invalid(OP, format!("{value:?} is unknown; use one of {right}"));
    found.map(|(_, operation)| operation).ok_or_else(unknown)
}

/// How much an increment adds; [`options`] has judged the names.
///
/// # Errors
/// [`RequestError::Invalid`] when it is no number.
pub(crate) fn by(uri: &Uri) -> Result<Option<i64>, RequestError> {
    let by = pairs(uri)?.into_iter().find(|(name, _)| name == BY);
    let number = |(_, value): (String, String)| {
        let right = format!("use {} to {}", i64::MIN, i64::MAX);
        value.parse().map_err(|_| invalid(BY, format!("{value:?} is not a whole number; {right}")))
    };
    by.map(number).transpose()
}

/// What a query wants listed; [`options`] has judged the names.
///
/// # Errors
/// [`RequestError::Invalid`] for a limit that is no number, or `keys_only` that is no truth value.
pub(crate) fn listing(uri: &Uri) -> Result<ListRequest, RequestError> {
    let mut asked = ListRequest::default();
    for (name, value) in pairs(uri)? {
        match name.as_str() {
            "prefix" => asked.prefix = Bytes::from(value),
            "limit" => {
                let limit =
                    value.parse().ok().filter(|_| value.bytes().all(|b| b.is_ascii_digit()));
                let problem =
                    || format!("{value:?} is not a number of rows; use 1 to {LIST_ROWS_MAX}");
                asked.limit = Some(limit.ok_or_else(|| invalid("limit", problem()))?);
            }
            "cursor" => asked.cursor = Some(value),
            "keys_only" => asked.keys_only = truth("keys_only", &value)?,
            _ => {}
        }
    }
    Ok(asked)
}

/// Whether a GET wants to watch rather than to read.
pub(crate) fn is_watch(uri: &Uri) -> bool {
    pairs(uri).is_ok_and(|pairs| pairs.iter().any(|(name, _)| name == WATCH))
}

/// What a query says of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchAsked {
    pub(crate) prefix: Bytes,
    pub(crate) from: Option<String>,
}

/// What a query wants watched, of a keyspace or of one key of it.
///
/// # Errors
/// [`RequestError::Invalid`] naming the parameter that a watch does not take, or that is not clear.
pub(crate) fn watch(uri: &Uri, of_key: bool) -> Result<WatchAsked, RequestError> {
    let takes: &[&'static str] = if of_key { &[WATCH, FROM] } else { &[WATCH, PREFIX, FROM] };
    let mut asked = WatchAsked::default();
    let mut seen: Vec<&'static str> = Vec::new();
    for (name, value) in pairs(uri)? {
        let Some(known) = takes.iter().find(|known| **known == name) else {
            let right = format!("a watch here takes {}", takes.join(", "));
            return Err(invalid("query", format!("{name:?} is not a parameter here; {right}")));
        };
        if seen.contains(known) {
            return Err(invalid(known, "is given twice"));
        }
        seen.push(known);
        match *known {
            PREFIX => asked.prefix = Bytes::from(value),
            FROM => asked.from = Some(value),
            name if !truth(name, &value)? => {
                return Err(invalid(name, "is false; leave it out to read, or give true"));
            }
            _ => {}
        }
    }
    Ok(asked)
}

/// The one parameter `key` of `/ring`.
///
/// # Errors
/// [`RequestError::Invalid`] for any other parameter, or more than one.
pub(crate) fn ring_key(uri: &Uri) -> Result<Option<String>, RequestError> {
    let mut pairs = pairs(uri)?.into_iter();
    match (pairs.next(), pairs.next()) {
        (None, _) => Ok(None),
        (Some((name, key)), None) if name == "key" => Ok(Some(key)),
        _ => Err(invalid("query", "/ring takes one parameter, key")),
    }
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, RequestError> {
    let Query(pairs) =
        Query::try_from_uri(uri).map_err(|error| invalid("query", error.body_text()))?;
    Ok(pairs)
}

/// What the parameters say so far.
#[derive(Default)]
struct Asked {
    options: RequestOptions,
    promise: v1::Consistency,
    max_staleness: Option<Duration>,
}

impl Asked {
    fn set(
        &mut self,
        name: &'static str,
        value: &str,
        limits: &Limits,
    ) -> Result<(), RequestError> {
        let options = &mut self.options;
        match name {
            "r" | "w" => options.quorum = Some(number(name, value)?),
            "level" => {
                options.level = Some(value.parse().map_err(|error: String| invalid(name, error))?);
            }
            "timeout" => options.timeout = Some(timeout(value, limits)?),
            "ttl" => options.ttl = Some(ttl(value)?),
            "sloppy" => options.sloppy = Some(truth(name, value)?),
            "consistency" => self.promise = promise(value)?,
            "max_staleness" => self.max_staleness = Some(duration(name, value)?),
            // Read by `listing`.
            name if LISTING.contains(&name) => {}
            // Read by `posted` and `by`.
            OP | BY => {}
            "one" => options.one = truth(name, value)?,
            _ => *options = convert::with_context(std::mem::take(options), value)?,
        }
        Ok(())
    }

    fn into_options(self) -> Result<RequestOptions, RequestError> {
        let consistency = strong::consistency(self.promise, self.max_staleness)?;
        let level = self.options.level.filter(|_| self.options.quorum.is_none());
        Ok(RequestOptions { level, consistency, ..self.options })
    }
}

fn promise(value: &str) -> Result<v1::Consistency, RequestError> {
    match value {
        "linearizable" => Ok(v1::Consistency::Linearizable),
        "lease" => Ok(v1::Consistency::Lease),
        "stale" => Ok(v1::Consistency::Stale),
        _ => {
            let right = "use linearizable, lease or stale";
            Err(invalid("consistency", format!("{value:?} is not a consistency; {right}")))
        }
    }
}

fn number(name: &'static str, value: &str) -> Result<u32, RequestError> {
    let positive = value.parse().ok().filter(|number| *number > 0);
    positive.ok_or_else(|| {
        invalid(name, format!("{value:?} is not a number of replicas; use 1 or more"))
    })
}

fn truth(name: &'static str, value: &str) -> Result<bool, RequestError> {
    value.parse().map_err(|_| invalid(name, format!("{value:?} is neither true nor false")))
}

fn timeout(value: &str, limits: &Limits) -> Result<Duration, RequestError> {
    let asked = duration("timeout", value)?;
    if asked.is_zero() {
        return Err(no_duration("timeout", value));
    }
    let max = limits.request_timeout_max;
    if asked > max {
        let limit = format!("request_timeout_max is {} ms", max.as_millis());
        return Err(invalid("timeout", format!("{limit}; got {value:?}")));
    }
    Ok(asked)
}

/// How long a value lives; the node judges how long it may.
fn ttl(value: &str) -> Result<Duration, RequestError> {
    units::parse_duration(value)
        .map_err(|right| invalid("ttl", format!("{value:?} is not a ttl; {right}")))
}

fn duration(name: &'static str, value: &str) -> Result<Duration, RequestError> {
    parse_duration(value).ok_or_else(|| no_duration(name, value))
}

fn no_duration(name: &'static str, value: &str) -> RequestError {
    let right = "use milliseconds, as in 500 or 500ms, or seconds, as in 2s";
    invalid(name, format!("{value:?} is not a {name}; {right}"))
}

fn parse_duration(value: &str) -> Option<Duration> {
    let number = |digits: &str| {
        // `parse` alone would take a sign.
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    if let Some(digits) = value.strip_suffix("ms") {
        number(digits).map(Duration::from_millis)
    } else if let Some(digits) = value.strip_suffix('s') {
        number(digits).map(Duration::from_secs)
    } else {
        number(value).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use Operation::{Append, Increment, Put, Read, UpdateSet, Write};

    use super::*;
    use crate::protocol::consistency::Consistency;
    use crate::protocol::quorum::level::Level;
    use crate::types::{Incarnation, Timestamp, Version};

    fn parse(operation: Operation, query: &str) -> Result<RequestOptions, RequestError> {
        let uri: Uri = format!("/kv/k{query}").parse().expect("a valid URI");
        options(operation, &uri, &Limits::default())
    }

    fn asked(change: impl FnOnce(&mut RequestOptions)) -> Result<RequestOptions, RequestError> {
        let mut options = RequestOptions::default();
        change(&mut options);
        Ok(options)
    }

    #[test]
    fn parameters_become_options() {
        let millis = |n| move |o: &mut RequestOptions| o.timeout = Some(Duration::from_millis(n));
        assert_eq!(parse(Read, ""), asked(|_| ()));
        assert_eq!(parse(Read, "?"), asked(|_| ()));
        assert_eq!(parse(Read, "?r=2"), asked(|o| o.quorum = Some(2)));
        assert_eq!(parse(Write, "?w=1"), asked(|o| o.quorum = Some(1)));
        assert_eq!(parse(Read, "?level=ALL"), asked(|o| o.level = Some(Level::All)));
        assert_eq!(parse(Read, "?timeout=500ms"), asked(millis(500)));
        assert_eq!(parse(Read, "?timeout=2s"), asked(millis(2000)));
        assert_eq!(parse(Read, "?timeout=250"), asked(millis(250)));
        assert_eq!(parse(Write, "?sloppy=false"), asked(|o| o.sloppy = Some(false)));
        assert_eq!(parse(Write, "?sloppy=true"), asked(|o| o.sloppy = Some(true)));
        assert_eq!(parse(Put, "?ttl=90s"), asked(|o| o.ttl = Some(Duration::from_secs(90))));
        assert_eq!(parse(Put, "?ttl=2h&w=2").map(|o| o.ttl), Ok(Some(Duration::from_secs(7200))));
        let version = Version { timestamp: Timestamp(1), incarnation: Incarnation(2) };
        let query = format!("?context={version}");
        assert_eq!(parse(Write, &query), asked(|o| o.context = Some(version)));
        assert_eq!(parse(Read, &query), asked(|o| o.context = Some(version)));
    }

    #[test]
    fn reads_say_how_fresh_they_must_be() {
        let promise = |consistency| asked(|o| o.consistency = Some(consistency));
        let linearizable = promise(Consistency::Linearizable);
        assert_eq!(parse(Read, "?consistency=linearizable"), linearizable);
        assert_eq!(parse(Read, "?consistency=lease"), promise(Consistency::Lease));
        let stale = promise(Consistency::Stale { max_staleness: Duration::from_millis(500) });
        assert_eq!(parse(Read, "?consistency=stale&max_staleness=500ms"), stale);
        assert_eq!(parse(Read, "?max_staleness=500&consistency=stale"), stale);
    }

    #[test]
    fn a_post_to_a_key_says_what_is_to_be_done() {
        let uri = |query: &str| -> Uri { format!("/v1/a/k{query}").parse().expect("a valid URI") };
        for (query, operation) in [
            ("?op=append&w=2", Append),
            ("?op=increment&by=-5", Increment),
            ("?w=2&op=update", UpdateSet),
        ] {
            assert_eq!(posted(&uri(query)), Ok(operation));
        }
        assert_eq!(parse(Append, "?op=append&w=2"), asked(|o| o.quorum = Some(2)));
        assert_eq!(parse(Increment, "?op=increment&by=7&w=2"), asked(|o| o.quorum = Some(2)));
        for query in ["", "?w=2", "?op=prepend", "?op="] {
            let error = posted(&uri(query)).expect_err(query).to_string();
            assert!(error.starts_with("op: "), "{query}: {error}");
            assert!(error.ends_with("append, increment, update"), "{query}: {error}");
        }
        assert!(parse(Append, "?op=append&op=append").is_err());
        assert!(parse(Append, "?op=append&by=1").is_err());
        assert!(parse(Write, "?op=append").is_err());
    }

    #[test]
    fn an_increment_says_by_how_much() {
        let by = |query: &str| by(&format!("/v1/a/k{query}").parse().expect("a valid URI"));
        assert_eq!(by("?op=increment"), Ok(None));
        assert_eq!(by("?op=increment&by=-5"), Ok(Some(-5)));
        assert_eq!(by("?by=9223372036854775807"), Ok(Some(i64::MAX)));
        for query in ["?by=", "?by=1.5", "?by=9223372036854775808"] {
            let error = by(query).expect_err(query).to_string();
            assert!(error.starts_with("by: "), "{query}: {error}");
            assert!(error.contains("not a whole number"), "{query}: {error}");
        }
    }

    #[test]
    fn a_number_wins_over_a_level_in_either_order() {
        assert_eq!(parse(Read, "?r=1&level=all"), asked(|o| o.quorum = Some(1)));
        assert_eq!(parse(Write, "?level=all&w=1"), asked(|o| o.quorum = Some(1)));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let cases = [
            (Read, "?q=1", vec!["query: ", "\"q\"", "a read takes r, level, timeout, context"]),
            (Read, "?w=1", vec!["query: ", "\"w\"", "a read takes r"]),
            (Write, "?r=1", vec!["query: ", "\"r\"", "a write takes w"]),
            (Read, "?sloppy=true", vec!["query: ", "\"sloppy\""]),
            (Read, "?R=1", vec!["query: ", "\"R\""]),
            (Read, "?r=0", vec!["r: ", "\"0\"", "1 or more"]),
            (Read, "?r=two", vec!["r: ", "\"two\"", "1 or more"]),
            (Read, "?r=-1", vec!["r: ", "\"-1\""]),
            (Read, "?r=4294967296", vec!["r: ", "\"4294967296\""]),
            (Read, "?r", vec!["r: ", "\"\""]),
            (Read, "?r=1&r=2", vec!["r: ", "twice"]),
            (Read, "?level=most", vec!["level: ", "\"most\"", "one, quorum or all"]),
            (Write, "?sloppy=maybe", vec!["sloppy: ", "\"maybe\"", "true nor false"]),
            (Read, "?consistency=strong", vec!["consistency: ", "\"strong\"", "lease or stale"]),
            (Read, "?consistency=stale", vec!["max_staleness: ", "is absent"]),
            (Read, "?max_staleness=1s", vec!["max_staleness: ", "consistency stale"]),
            (Read, "?consistency=stale&max_staleness=x", vec!["max_staleness: ", "\"x\""]),
            (Read, "?consistency=lease&max_staleness=1", vec!["max_staleness: ", "stale"]),
            (Write, "?consistency=lease", vec!["query: ", "\"consistency\"", "a write takes w"]),
            (Put, "?ttl=30", vec!["ttl: ", "\"30\" is not a ttl", "ms, s, m, h or d"]),
            (Put, "?ttl=1s&ttl=2s", vec!["ttl: ", "twice"]),
            (Write, "?ttl=30s", vec!["query: ", "\"ttl\"", "a write takes w"]),
            (Read, "?ttl=30s", vec!["query: ", "\"ttl\"", "a read takes r"]),
            (Write, "?context=1", vec!["context: ", "\"1\"", "receipt's version"]),
        ];
        for (operation, query, parts) in cases {
            let error = parse(operation, query).expect_err(query).to_string();
            for part in parts {
                assert!(error.contains(part), "{query}: {error}");
            }
        }
    }

    #[test]
    fn timeouts_are_refused_when_malformed_zero_or_above_the_limit() {
        for value in ["", "0", "0s", "ms", "s", "-5", "%2B5", "1.5s", "5m", "5 s", "fast"] {
            let error = parse(Read, &format!("?timeout={}", value.replace(' ', "%20")));
            let error = error.expect_err(value).to_string();
            assert!(error.contains("is not a timeout; use milliseconds"), "{value}: {error}");
        }
        let error = parse(Read, "?timeout=61s").expect_err("above").to_string();
        assert_eq!(error, "timeout: request_timeout_max is 60000 ms; got \"61s\"");
        assert!(parse(Read, "?timeout=60s").is_ok());
    }

    #[test]
    fn a_watch_takes_its_own_parameters_and_nothing_else() {
        let uri = |query: &str| -> Uri { format!("/v1/k?{query}").parse().expect("a URI") };
        assert!(is_watch(&uri("prefix=a&watch=true")) && !is_watch(&uri("prefix=watch")));
        let asked = watch(&uri("watch=true&prefix=a%3A&from=01"), false);
        let expected = WatchAsked { prefix: Bytes::from("a:"), from: Some("01".to_owned()) };
        assert_eq!(asked, Ok(expected));
        assert_eq!(watch(&uri("watch=true"), true), Ok(WatchAsked::default()));
        let cases = [
            (
                "watch=true&prefix=a",
                true,
                "query: \"prefix\" is not a parameter here; a watch here",
            ),
            ("watch=true&limit=1", false, "query: \"limit\""),
            ("watch=1", false, "watch: \"1\" is neither true nor false"),
            ("watch=false", false, "watch: is false; leave it out to read, or give true"),
            ("watch=true&watch=true", false, "watch: is given twice"),
        ];
        for (query, of_key, expected) in cases {
            let error = watch(&uri(query), of_key).expect_err(query).to_string();
            assert!(error.starts_with(expected), "{query}: {error}");
        }
    }

    #[test]
    fn the_ring_takes_a_key_and_nothing_else() {
        let ring = |query: &str| ring_key(&format!("/ring{query}").parse().expect("a URI"));
        assert_eq!(ring(""), Ok(None));
        assert_eq!(ring("?key=a%2Fb"), Ok(Some("a/b".to_owned())));
        assert!(ring("?k=1").is_err() && ring("?key=1&key=2").is_err());
    }
}
