//! Headers that say how a request is to be served: contexts of reads and writes; conditions (RFC
//! 9110, section 13.1) and sessions of writes to strong keyspaces.
//!
//! A condition that no keyspace can judge as it was meant is refused, never ignored.

use axum::http::{HeaderMap, HeaderName, header};

use crate::api::convert::{self, invalid, strong};
use crate::api::http::reply::CONTEXT_HEADER;
use crate::node::request::{RequestError, RequestOptions};
use crate::proto::v1;
use crate::protocol::group::command::{Expect, SessionStamp};

/// [`CONTEXT_HEADER`] as errors name it.
const CONTEXT: &str = "x-coterie-context";

/// The header that tells a write from its own repetition.
pub(crate) const SESSION: &str = "coterie-session";

/// Adds a request's context to its options, of which the query may have one as well as the header.
///
/// # Errors
/// [`RequestError::Invalid`] naming the header.
pub(crate) fn with_context(
    headers: &HeaderMap,
    options: RequestOptions,
) -> Result<RequestOptions, RequestError> {
    let Some(text) = single(headers, &CONTEXT_HEADER)? else { return Ok(options) };
    if options.context.is_some() || options.seen.is_some() {
        let problem = "is given twice: as a header, and as the parameter context";
        return Err(invalid(CONTEXT, problem));
    }
    convert::with_context(options, text).map_err(|error| match error {
        RequestError::Invalid { problem, .. } => invalid(CONTEXT, problem),
        other => other,
    })
}

/// Refuses a context where there is no one key that it could belong to.
///
/// # Errors
/// [`RequestError::Invalid`] naming the header.
pub(crate) fn without_context(headers: &HeaderMap) -> Result<(), RequestError> {
    match headers.contains_key(&CONTEXT_HEADER) {
        true => Err(invalid(CONTEXT, "belongs to one key; a listing takes none")),
        false => Ok(()),
    }
}

/// Adds a write's condition and session to its options.
///
/// # Errors
/// [`RequestError::Invalid`] naming the header.
pub(crate) fn of_write(
    headers: &HeaderMap,
    options: RequestOptions,
) -> Result<RequestOptions, RequestError> {
    Ok(RequestOptions { expect: expect(headers)?, session: session(headers)?, ..options })
}

/// Adds a read's session, which the node will refuse: its sender takes the read for a write.
///
/// # Errors
/// As [`of_write`].
pub(crate) fn of_read(
    headers: &HeaderMap,
    options: RequestOptions,
) -> Result<RequestOptions, RequestError> {
    Ok(RequestOptions { session: session(headers)?, ..options })
}

/// What the key must be for the write to happen.
fn expect(headers: &HeaderMap) -> Result<Option<Expect>, RequestError> {
    let if_match = single(headers, &header::IF_MATCH)?;
    let if_none_match = single(headers, &header::IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (None, None) => Ok(None),
        (Some("*"), None) => Ok(Some(Expect::Present)),
        (Some(tag), None) => matching(tag).map(Some),
        (None, Some("*")) => Ok(Some(Expect::Absent)),
        (None, Some(tag)) => {
            let right = "a write takes If-None-Match: *, for a key without a value";
            Err(invalid("if-none-match", format!("{tag} is not a condition here; {right}")))
        }
        (Some(_), Some(_)) => Err(invalid("if-none-match", "cannot be joined with if-match")),
    }
}

fn matching(tag: &str) -> Result<Expect, RequestError> {
    if tag.starts_with("W/") {
        // A weak tag matches nothing (RFC 9110, section 13.1.1).
        return Ok(strong::never());
    }
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner.filter(|inner| !inner.contains('"')) else {
        let right = "send one ETag, as in \"0192f3a4b5c60000-0000000000000000\", or *";
        return Err(invalid("if-match", format!("{tag} is not an entity tag; {right}")));
    };
    // A tag that this cluster never gave out is a tag all the same, of another value.
    Ok(inner.parse().map_or_else(|_| strong::never(), strong::changed_at))
}

/// A session as `client/sequence` or `client/sequence/acknowledged`.
fn session(headers: &HeaderMap) -> Result<Option<SessionStamp>, RequestError> {
    let name = HeaderName::from_static(SESSION);
    let Some(text) = single(headers, &name)? else { return Ok(None) };
    let sent = parse_session(text).ok_or_else(|| {
        let right = "send client/sequence or client/sequence/acknowledged, as in \
                     0123456789abcdef/2/1";
        invalid("coterie-session", format!("{text:?} is not a session; {right}"))
    })?;
    strong::stamp(&sent).map(Some)
}

fn parse_session(text: &str) -> Option<v1::Session> {
    let number = |digits: &str| {
        // `parse` alone would take a sign.
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let mut parts = text.split('/');
    let client = parts.next()?.to_owned();
    let sequence = number(parts.next()?)?;
    let acknowledged = parts.next().map_or(Some(0), number)?;
    parts.next().is_none().then_some(v1::Session { client, sequence, acknowledged })
}

/// A header that may be given once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, RequestError> {
    let mut values = headers.get_all(name).into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    let field = field(name);
    if values.next().is_some() {
        return Err(invalid(field, "is given twice"));
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| invalid(field, "is not ASCII text"))
}

fn field(name: &HeaderName) -> &'static str {
    match name.as_str() {
        "if-match" => "if-match",
        "if-none-match" => "if-none-match",
        CONTEXT => CONTEXT,
        _ => SESSION,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::types::{ClientId, Revision, Version};

    const OURS: &str = "\"0000000000000007-0000000000000000\"";
    const FOREIGN: &str = "\"0000000000000007-0000000000000009\"";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn asked(pairs: &[(&'static str, &'static str)]) -> Result<RequestOptions, RequestError> {
        of_write(&headers(pairs), RequestOptions::default())
    }

    #[test]
    fn conditions_become_expectations() {
        let cases = [
            ("if-match", "*", Expect::Present),
            ("if-match", OURS, Expect::Revision(Revision(7))),
            ("if-match", " \"0000000000000007-0000000000000000\" ", Expect::Revision(Revision(7))),
            ("if-match", FOREIGN, strong::never()),
            ("if-match", "\"xyzzy\"", strong::never()),
            ("if-match", "\"\"", strong::never()),
            ("if-match", "W/\"0000000000000007-0000000000000000\"", strong::never()),
            ("if-none-match", "*", Expect::Absent),
        ];
        for (name, value, expected) in cases {
            let options = asked(&[(name, value)]).expect(value);
            assert_eq!(options.expect, Some(expected), "{name}: {value}");
        }
        assert_eq!(asked(&[]), Ok(RequestOptions::default()));
    }

    #[test]
    fn a_context_comes_by_header_or_by_parameter_and_not_by_both() {
        let version: Version = OURS.trim_matches('"').parse().expect("a version");
        let sent = headers(&[(CONTEXT, "0000000000000007-0000000000000000")]);
        let by_header = with_context(&sent, RequestOptions::default()).map(|it| it.context);
        assert_eq!(by_header, Ok(Some(version)));
        let asked = RequestOptions { context: Some(version), ..RequestOptions::default() };
        assert_eq!(with_context(&HeaderMap::new(), asked.clone()), Ok(asked.clone()));
        let both = with_context(&sent, asked).expect_err("twice").to_string();
        assert!(both.starts_with("x-coterie-context: is given twice"), "{both}");
        let bad = with_context(&headers(&[(CONTEXT, "7")]), RequestOptions::default());
        let bad = bad.expect_err("no version").to_string();
        assert!(bad.starts_with("x-coterie-context: ") && bad.contains("\"7\""), "{bad}");
    }

    /// Headers, and two texts that the error has.
    type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str);

    #[test]
    fn what_cannot_be_judged_is_refused() {
        const TWO: &str = "\"a\", \"b\"";
        let cases: [Case; 8] = [
            (&[("if-match", "7")], "if-match: ", "is not an entity tag"),
            (&[("if-match", "")], "if-match: ", "is not an entity tag"),
            (&[("if-match", "\"")], "if-match: ", "is not an entity tag"),
            (&[("if-match", TWO)], "if-match: ", "send one ETag"),
            (&[("if-none-match", OURS)], "if-none-match: ", "If-None-Match: *"),
            (&[("if-match", "*"), ("if-none-match", "*")], "if-none-match: ", "joined"),
            (&[("if-match", "*"), ("if-match", "*")], "if-match: ", "twice"),
            (&[("if-match", "\u{f6}")], "if-match: ", "is not"),
        ];
        for (pairs, field, part) in cases {
            let mut all = HeaderMap::new();
            for (name, value) in pairs {
                let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
                all.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
            }
            let error = of_write(&all, RequestOptions::default()).expect_err(part).to_string();
            assert!(error.starts_with(field) && error.contains(part), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn sessions_are_client_sequence_and_acknowledged() {
        let stamp = |sequence, acknowledged| {
            Some(SessionStamp { client: ClientId(0xab), sequence, acknowledged })
        };
        let session = |text| asked(&[(SESSION, text)]).map(|options| options.session);
        assert_eq!(session("00000000000000ab/1"), Ok(stamp(1, 0)));
        assert_eq!(session("00000000000000AB/12/7"), Ok(stamp(12, 7)));
        let read = of_read(&headers(&[(SESSION, "00000000000000ab/1")]), RequestOptions::default());
        assert_eq!(read.map(|options| options.session), Ok(stamp(1, 0)));
        for bad in [
            "",
            "00000000000000ab",
            "00000000000000ab/",
            "00000000000000ab/+1",
            "00000000000000ab/x",
            "00000000000000ab/1/",
            "00000000000000ab/1/0/0",
            "00000000000000ab/0",
            "ab/1",
            "+0000000000000ab/1",
            "00000000000000ag/1",
            "/1",
        ] {
            let error = session(bad).expect_err(bad).to_string();
            assert!(error.contains("session"), "{bad}: {error}");
        }
    }
}
