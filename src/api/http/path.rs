//! Keyspaces and keys in paths: `/kv/{key}`, `/v1/{keyspace}/{key}` and `/v1/{keyspace}`. A key is
//! all that follows its slash, percent-decoded once.
//!
//! Slashes, empty segments and dots are part of the key: nothing is normalised here. (Some clients
//! do so before they send; they send `..` as `%2e%2e`, or are told not to, as by curl's
//! `--path-as-is`.)

use percent_encoding::percent_decode_str;

use crate::api::convert::invalid;
use crate::node::request::RequestError;

const DEFAULT_PREFIX: &str = "/kv/";
const KEYSPACES_PREFIX: &str = "/v1/";

/// The keyspace and the key that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `None` for the default one, by `/kv/`.
    pub(crate) keyspace: Option<String>,
    pub(crate) key: String,
}

/// The keyspace and the key that a path names.
///
/// # Errors
/// [`RequestError::Invalid`] when one is empty, has a malformed escape, or is not UTF-8.
pub(crate) fn place(path: &str) -> Result<Place, RequestError> {
    match path.strip_prefix(KEYSPACES_PREFIX) {
        None => {
            let raw = path.strip_prefix(DEFAULT_PREFIX).unwrap_or_default();
            Ok(Place { keyspace: None, key: decoded("key", raw, "/kv/{key}")? })
        }
        Some(rest) => {
            let (keyspace, key) = rest.split_once('/').unwrap_or((rest, ""));
            let keyspace = Some(decoded("keyspace", keyspace, "/v1/{keyspace}/{key}")?);
            Ok(Place { keyspace, key: decoded("key", key, "/v1/{keyspace}/{key}")? })
        }
    }
}

/// The keyspace that `/v1/{keyspace}` names.
///
/// # Errors
/// As [`place`].
pub(crate) fn keyspace(path: &str) -> Result<String, RequestError> {
    let raw = path.strip_prefix(KEYSPACES_PREFIX).unwrap_or_default();
    decoded("keyspace", raw, "/v1/{keyspace}")
}

/// Whether the path begins with a keyspace's name.
pub(crate) fn names_keyspace(path: &str) -> bool {
    path.starts_with(KEYSPACES_PREFIX)
}

fn decoded(field: &'static str, raw: &str, right: &str) -> Result<String, RequestError> {
    if raw.is_empty() {
        return Err(invalid(field, format!("is empty; the path is {right}")));
    }
    if let Some(escape) = malformed_escape(raw) {
        let right = "use % and two hexadecimal digits, and %25 for % itself";
        return Err(invalid(field, format!("{escape:?} is not an escape; {right}")));
    }
    let not_utf8 = |_| invalid(field, format!("{raw:?} is not UTF-8 once percent-decoded"));
    percent_decode_str(raw).decode_utf8().map(String::from).map_err(not_utf8)
}

/// The first `%` that two hexadecimal digits do not follow, with what follows it instead.
fn malformed_escape(raw: &str) -> Option<String> {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let (at, _) = raw.match_indices('%').find(|(at, _)| {
        let rest = &raw.as_bytes()[at + 1..];
        !(is_hex(rest.first()) && is_hex(rest.get(1)))
    })?;
    Some(raw[at..].chars().take(3).collect())
}

#[cfg(test)]
mod tests {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    const KEEP_SLASHES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/');

    fn key(path: &str) -> Result<String, RequestError> {
        place(path).map(|place| place.key)
    }

    #[test]
    fn a_key_is_all_that_follows_decoded_once() {
        let cases = [
            ("/kv/a", "a"),
            ("/kv/a/b%2Fc%20d", "a/b/c d"),
            ("/kv//x", "/x"),
            ("/kv//", "/"),
            ("/kv/x/", "x/"),
            ("/kv/..", ".."),
            ("/kv/../../status", "../../status"),
            ("/kv/%2e%2E", ".."),
            ("/kv/a+b", "a+b"),
            ("/kv/%2525", "%25"),
            ("/kv/%C3%B6", "ö"),
            ("/kv/ö", "ö"),
            ("/kv/%00", "\0"),
            ("/kv/a?b", "a?b"),
            ("/kv/kv/kv", "kv/kv"),
        ];
        for (path, expected) in cases {
            assert_eq!(key(path).as_deref(), Ok(expected), "{path}");
            let named = path.replacen("/kv/", "/v1/lists/", 1);
            let place = Place { keyspace: Some("lists".to_owned()), key: expected.to_owned() };
            assert_eq!(super::place(&named), Ok(place), "{named}");
        }
    }

    #[test]
    fn a_keyspace_is_one_segment() {
        assert_eq!(keyspace("/v1/lists").as_deref(), Ok("lists"));
        assert_eq!(keyspace("/v1/my%2Dlists").as_deref(), Ok("my-lists"));
        assert!(names_keyspace("/v1/lists/k") && !names_keyspace("/kv/v1/lists"));
        let place = place("/v1/%6cists/a/b").expect("a place");
        assert_eq!((place.keyspace.as_deref(), place.key.as_str()), (Some("lists"), "a/b"));
        for (path, expected) in [
            ("/v1/lists", "key: is empty; the path is /v1/{keyspace}/{key}"),
            ("/v1/lists/", "key: is empty; the path is /v1/{keyspace}/{key}"),
            ("/v1//k", "keyspace: is empty; the path is /v1/{keyspace}/{key}"),
            ("/v1/%zz/k", "keyspace: \"%zz\" is not an escape"),
        ] {
            let error = super::place(path).expect_err(path).to_string();
            assert!(error.starts_with(expected), "{path}: {error}");
        }
        assert!(keyspace("/v1/").is_err());
    }

    #[test]
    fn a_path_without_a_clear_key_is_refused() {
        let cases = [
            ("/kv", "is empty"),
            ("/kv/", "is empty"),
            ("/kv/100%", "\"%\""),
            ("/kv/%zz1", "\"%zz\""),
            ("/kv/a%2", "\"%2\""),
            ("/kv/%2ö", "\"%2ö\""),
            ("/kv/%25%", "\"%\""),
            ("/kv/%ff", "not UTF-8"),
            ("/kv/%C3", "not UTF-8"),
        ];
        for (path, expected) in cases {
            let error = key(path).expect_err(path).to_string();
            assert!(error.starts_with("key: ") && error.contains(expected), "{path}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_encoded_key_comes_back(text in ".+") {
            let whole = format!("/kv/{}", utf8_percent_encode(&text, NON_ALPHANUMERIC));
            prop_assert_eq!(key(&whole), Ok(text.clone()));
            let slashes = format!("/kv/{}", utf8_percent_encode(&text, KEEP_SLASHES));
            prop_assert_eq!(key(&slashes), Ok(text));
        }

        #[test]
        fn no_path_panics(path in "/kv/(%|[0-9a-f]|.){0,12}") {
            let _ = key(&path);
        }
    }
}
