//! Enforces what of the house style a machine can see, and says what to do instead.
//!
//! `cargo test --test tidy`. The rules on single files stand in `tidy/rules.rs`; here are the
//! files that they are applied to, and the bounds on the code as a whole.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/scanner.rs"]
mod scanner;

use std::fs;
use std::path::{Path, PathBuf};

use rules::{Finding, RULES, SLEEPERS};
use scanner::Source;

/// Where sources stand.
const FOLDERS: [&str; 4] = ["src", "tests", "benches", "proto"];

/// Bounds on the functions and files of the whole repository.
const FUNCTION_LINES_MEDIAN_MAX: usize = 10;
const FUNCTION_LINES_P90_MAX: usize = 30;
const FILE_LINES_MEDIAN_MAX: usize = 220;

#[test]
fn every_file_keeps_the_rules() {
    let sources = sources();
    let mut findings: Vec<String> = Vec::new();
    for (name, rule) in RULES {
        let found = sources.iter().flat_map(rule);
        findings.extend(found.map(|finding| shown(name, &finding)));
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn functions_are_short_on_the_whole() {
    let sources = sources();
    let mut lengths: Vec<usize> =
        sources.iter().flat_map(|source| source.functions()).map(|f| f.lines).collect();
    lengths.sort_unstable();
    let (median, p90) = (rank(&lengths, 50), rank(&lengths, 90));
    println!("{} functions: median {median}, 90 % within {p90} lines", lengths.len());
    assert!(
        median <= FUNCTION_LINES_MEDIAN_MAX && p90 <= FUNCTION_LINES_P90_MAX,
        "functions have a median of {median} lines ({FUNCTION_LINES_MEDIAN_MAX} are the most) and \
         90 % lie within {p90} ({FUNCTION_LINES_P90_MAX}): give steps of the longest a name"
    );
}

#[test]
fn files_are_short_on_the_whole() {
    let sources = sources();
    let rust = sources.iter().filter(|source| source.path.ends_with(".rs"));
    let mut lengths: Vec<usize> = rust.map(Source::production_lines).collect();
    lengths.sort_unstable();
    let median = rank(&lengths, 50);
    println!("{} files: median {median} production lines", lengths.len());
    assert!(
        median <= FILE_LINES_MEDIAN_MAX,
        "files have a median of {median} lines, {FILE_LINES_MEDIAN_MAX} are the most: split the \
         longest along their ideas"
    );
}

#[test]
fn every_file_is_seen_and_every_excuse_is_needed() {
    let sources = sources();
    for needed in ["src/lib.rs", "src/types.rs", "tests/tidy.rs", "build.rs", "proto/kv.proto"] {
        assert!(sources.iter().any(|source| source.path == needed), "{needed} was not scanned");
    }
    for (path, reason) in SLEEPERS {
        let source = sources.iter().find(|source| source.path == *path);
        let sleeps = source.is_some_and(|source| source.code.contains("::sleep"));
        assert!(sleeps, "{path} no longer sleeps ({reason}): take it out of SLEEPERS");
    }
}

fn shown(rule: &str, finding: &Finding) -> String {
    format!("  {}:{}: [{rule}] {}", finding.path, finding.line, finding.advice)
}

/// The length that `percent` of the sorted lengths do not exceed.
fn rank(sorted: &[usize], percent: usize) -> usize {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0)
}

fn sources() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![top.join("build.rs")];
    FOLDERS.iter().for_each(|folder| collect(&top.join(folder), &mut paths));
    paths.sort();
    let mut sources: Vec<Source> = paths.iter().map(|path| read(top, path)).collect();
    let hidden: Vec<String> = sources.iter().flat_map(test_only_files).collect();
    for source in &mut sources {
        let inside = |file: &String| {
            source.path == format!("{file}.rs") || source.path.starts_with(&format!("{file}/"))
        };
        source.test_only |= hidden.iter().any(inside);
    }
    sources
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("a directory can be listed").path()) {
        let kind = entry.extension().and_then(|kind| kind.to_str());
        match kind {
            _ if entry.is_dir() => collect(&entry, paths),
            Some("rs" | "proto") => paths.push(entry),
            _ => {}
        }
    }
}

fn read(top: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a source is UTF-8");
    let name = path.strip_prefix(top).expect("sources lie below the top");
    Source::new(&name.to_string_lossy().replace('\\', "/"), &text)
}

/// Files, without their `.rs`, that hold the test-only modules which a file declares.
fn test_only_files(source: &Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs");
    let folder = stem.strip_suffix("/mod").or(stem.strip_suffix("/lib")).unwrap_or(stem);
    source.test_only_modules().iter().map(|name| format!("{folder}/{name}")).collect()
}

#[test]
fn a_rank_is_the_length_that_so_many_do_not_exceed() {
    let lengths: Vec<usize> = (1..=10).collect();
    assert_eq!((rank(&lengths, 50), rank(&lengths, 90), rank(&[], 50)), (5, 9, 0));
}
