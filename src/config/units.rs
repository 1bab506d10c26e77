//! Sizes and durations as people write them: `64MiB`, `500ms`, `3h`.

use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const DURATION_UNITS_MS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Bytes of a size: a plain number, or one with `B`, `KiB`, `MiB`, `GiB` or `TiB`.
///
/// # Errors
/// What a size must look like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const RIGHT: &str = "a size is bytes, or a whole number with KiB, MiB, GiB or TiB, as in 64MiB";
    let (number, unit) = split(text).ok_or(RIGHT)?;
    let known = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let factor = if unit.is_empty() { Some(1) } else { known.map(|(_, factor)| *factor) };
    factor.and_then(|factor| number.checked_mul(factor)).ok_or_else(|| RIGHT.to_owned())
}

/// A duration: a whole number with `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// What a duration must look like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const RIGHT: &str = "a duration is a whole number with ms, s, m, h or d, as in 500ms or 3h";
    let (number, unit) = split(text).ok_or(RIGHT)?;
    let factor = DURATION_UNITS_MS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
    let ms = factor.and_then(|factor| number.checked_mul(factor));
    ms.map(Duration::from_millis).ok_or_else(|| RIGHT.to_owned())
}

/// A size in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*factor);
    let (name, factor) = SIZE_UNITS.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / factor)
}

/// A size for people: rounded to one decimal of the largest unit that is not above it.
pub fn about_size(bytes: u64) -> String {
    let (name, factor) =
        SIZE_UNITS.iter().find(|(_, factor)| bytes >= *factor).unwrap_or(&("B", 1));
    if *factor == 1 {
        return format!("{bytes} {name}");
    }
    format!("{:.1} {name}", bytes as f64 / *factor as f64)
}

/// A duration in the largest unit that divides it.
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, factor): &&(&str, u64)| ms > 0 && ms.is_multiple_of(*factor);
    let (name, factor) = DURATION_UNITS_MS.iter().rev().find(fits).unwrap_or(&("ms", 1));
    format!("{}{name}", ms / factor)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let cases = [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("2KiB", Some(2048)),
            ("64 MiB", Some(64 << 20)),
            ("1gib", Some(1 << 30)),
            ("", None),
            ("MiB", None),
            ("64MB", None),
            ("1.5MiB", None),
            ("-1", None),
            ("99999999999TiB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text).ok(), bytes, "{text:?}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        let cases = [
            ("0ms", Some(0)),
            ("500ms", Some(500)),
            ("2s", Some(2000)),
            ("3 h", Some(3 * 3_600_000)),
            ("5m", Some(300_000)),
            ("1d", Some(86_400_000)),
            ("5", None),
            ("5M", None),
            ("fast", None),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_duration(text).ok(), ms.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        for bytes in [0, 1, 1000, 1024, 1 << 20, 3 << 30, (1 << 40) + 1] {
            assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }
        for ms in [0, 1, 999, 1000, 60_000, 90_000, 10_800_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn sizes_for_people_are_rounded() {
        assert_eq!(about_size(0), "0 B");
        assert_eq!(about_size(1023), "1023 B");
        assert_eq!(about_size(1536), "1.5 KiB");
        assert_eq!(about_size(5 << 30), "5.0 GiB");
    }
}
