//! The house's rules on single files. Each names the line at fault and says what to do instead.

use std::collections::BTreeSet;

use crate::scanner::{Source, module_name};

/// A rule broken: where, and what to do instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) advice: String,
}

/// A rule on one file.
pub(crate) type Rule = fn(&Source) -> Vec<Finding>;

/// Every rule on Rust files.
pub(crate) const RULES: [(&str, Rule); 14] = [
    ("file length", file_length),
    ("function length", function_length),
    ("line width", line_width),
    ("import direction", import_direction),
    ("upward paths", upward_paths),
    ("purity of protocol", protocol_purity),
    ("module names", module_names),
    ("glob re-exports", glob_re_exports),
    ("glossary", glossary),
    ("unfinished code", unfinished_code),
    ("unfinished notes", unfinished_notes),
    ("sleeping tests", sleeping_tests),
    ("unwrapping", unwrapping),
    ("ignored tests", ignored_tests),
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;
const COLUMNS_MAX: usize = 100;

/// Layers and what each may import, itself aside.
const LAYERS: [(&str, &[&str]); 12] = [
    ("types", &[]),
    ("proto", &[]),
    ("protocol", &["types"]),
    ("config", &["types", "protocol"]),
    ("pieces", &[]),
    ("telemetry", &["types", "protocol", "config"]),
    ("storage", &["types", "protocol", "config", "telemetry"]),
    ("net", &["types", "protocol", "config", "telemetry", "proto"]),
    ("node", &["types", "protocol", "config", "telemetry", "storage", "net"]),
    ("api", &["types", "protocol", "config", "telemetry", "net", "proto", "node"]),
    ("client", &["types", "protocol", "proto"]),
    ("cli", &["types", "protocol", "config", "telemetry", "net", "proto", "node", "api", "client"]),
];

/// What a pure layer must not name, and what it does instead.
const IMPURE: [(&str, &str); 13] = [
    ("async", "return a value that says what to do; the driver in node/ does it"),
    ("await", "return a value that says what to do; the driver in node/ does it"),
    ("tokio", "return a value that says what to do; the driver in node/ does it"),
    ("spawn", "return a value that says what to do; the driver in node/ does it"),
    ("Instant", "take `now: Moment` as a parameter"),
    ("SystemTime", "take the wall clock as a parameter"),
    ("rand", "take a random number as a parameter"),
    ("fs", "leave files to storage/"),
    ("TcpStream", "leave sockets to net/"),
    ("TcpListener", "leave sockets to net/"),
    ("UdpSocket", "leave sockets to net/"),
    ("HashMap", "use BTreeMap: its order is the same in every run"),
    ("HashSet", "use BTreeSet: its order is the same in every run"),
];

const VAGUE_MODULES: [&str; 9] =
    ["util", "utils", "common", "helper", "helpers", "manager", "misc", "base", "shared"];

/// Words that the glossary replaces.
const REPLACED_WORDS: [(&str, &str); 5] = [
    ("shard", "partition"),
    ("region", "partition"),
    ("tablet", "partition"),
    ("master", "coordinator, founder or voter"),
    ("slave", "replica"),
];

/// Tests that may sleep, and why.
pub(crate) const SLEEPERS: &[(&str, &str)] = &[
    ("tests/simulation/agenda.rs", "sleeps in virtual time, which this file makes"),
    ("tests/cluster/harness.rs", "asks real processes again and again, up to a deadline"),
    ("tests/containers/crew.rs", "writers that rest when they were refused"),
    ("tests/crash/load.rs", "writers that rest when they were refused"),
    ("tests/crash/plan.rs", "lets real nodes work until a random moment, at which they die"),
    ("src/api/batch/tests.rs", "sleeps in virtual time, which stands for the work of an item"),
    ("benches/ceiling/main.rs", "idle cost is cost over time"),
    ("benches/ceiling/process.rs", "asks real processes again and again, up to a deadline"),
    ("src/cli/bench/driver.rs", "stands for the time that a server takes"),
    ("src/net/peer/tests/exchange.rs", "fills a socket's buffers until they stay full"),
    ("src/net/peer/tests/lifecycle.rs", "asks for a condition that nothing announces"),
];

impl Source {
    fn finding(&self, line: usize, advice: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line: line + 1, advice: advice.into() }
    }

    fn in_src(&self) -> bool {
        self.path.starts_with("src/")
    }

    /// `net` for `src/net/peer.rs` and for `src/net.rs`.
    fn layer(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let first = inside.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }
}

fn file_length(source: &Source) -> Vec<Finding> {
    let lines = source.production_lines();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let advice = format!(
        "{lines} production lines, {FILE_LINES_MAX} are the most: split the file along an idea"
    );
    vec![source.finding(0, advice)]
}

fn function_length(source: &Source) -> Vec<Finding> {
    let long = source.functions().into_iter().filter(|f| f.lines > FUNCTION_LINES_MAX);
    long.map(|f| {
        let (name, lines) = (&f.name, f.lines);
        let most = format!("{FUNCTION_LINES_MAX} are the most");
        source.finding(f.line, format!("{name} has {lines} lines, {most}: give a step a name"))
    })
    .collect()
}

fn line_width(source: &Source) -> Vec<Finding> {
    let wide = source.text.lines().enumerate().filter(|(_, l)| l.chars().count() > COLUMNS_MAX);
    wide.map(|(at, _)| source.finding(at, "over 100 columns: break the line (cargo fmt)")).collect()
}

fn import_direction(source: &Source) -> Vec<Finding> {
    let Some(layer) = source.layer().filter(|layer| !matches!(*layer, "lib" | "main")) else {
        return Vec::new();
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        let advice = format!("{layer} is no layer: put it into one, or add it to tests/tidy");
        return vec![source.finding(0, advice)];
    };
    let wrong = imports(&source.code).into_iter();
    wrong
        .filter(|(_, to)| {
            let is_layer = LAYERS.iter().any(|(name, _)| name == to);
            is_layer && to != layer && !allowed.contains(&to.as_str())
        })
        .map(|(at, to)| {
            let may = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
            let advice = format!(
                "{layer} must not import {to} (it may import {may}): move the shared part to a \
                 layer further left, or pass it in through a trait"
            );
            source.finding(at, advice)
        })
        .collect()
}

/// Modules at the top of the crate that code names by `crate::…`, with their lines.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (byte, path) in code.match_indices("crate::") {
        let line = code[..byte].matches('\n').count();
        let rest = &code[byte + path.len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => group_members(group),
            None => vec![leading_word(rest)],
        };
        found.extend(names.into_iter().map(|name| (line, name)));
    }
    found
}

/// The first words of the members of `{a::b, c::{d, e}}`.
fn group_members(group: &str) -> Vec<String> {
    let (mut depth, mut members, mut member) = (0_usize, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(std::mem::take(&mut member)),
            _ if depth == 0 => member.push(c),
            _ => {}
        }
    }
    members.push(member);
    let words = members.iter().map(|member| leading_word(member.trim()));
    words.filter(|word| !word.is_empty()).collect()
}

fn leading_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn upward_paths(source: &Source) -> Vec<Finding> {
    if !source.in_src() {
        return Vec::new();
    }
    let advice = "write the path from `crate::`, so that its layer is seen";
    lines_with(source, |line| line.contains("super::super::"), advice)
}

fn protocol_purity(source: &Source) -> Vec<Finding> {
    if source.layer() != Some("protocol") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, line) in source.production_code() {
        let named: BTreeSet<&str> = words(line).collect();
        let impure = IMPURE.iter().filter(|(word, _)| named.contains(word));
        found.extend(impure.map(|(word, instead)| {
            source.finding(at, format!("protocol/ is pure and does not name `{word}`: {instead}"))
        }));
        if line.contains("thread::") {
            let advice = "protocol/ is pure and starts no thread: leave that to node/";
            found.push(source.finding(at, advice));
        }
    }
    found
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn module_names(source: &Source) -> Vec<Finding> {
    let stem = source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    let declared = source.code.lines().enumerate().filter_map(|(at, line)| {
        let declares = line.trim_end().ends_with(['{', ';']);
        Some((at, module_name(line.trim()).filter(|_| declares)?))
    });
    let all = std::iter::once((0, stem.to_owned())).chain(declared);
    all.filter(|(_, name)| VAGUE_MODULES.contains(&name.as_str()))
        .map(|(at, name)| {
            let advice = format!("`{name}` says nothing: name the module for the idea it holds");
            source.finding(at, advice)
        })
        .collect()
}

fn glob_re_exports(source: &Source) -> Vec<Finding> {
    let is_glob = |line: &str| {
        let line = line.trim();
        let public = line.starts_with("pub use") || line.starts_with("pub(");
        public && line.contains(" use ") && line.ends_with("*;")
    };
    lines_with(source, is_glob, "name what is re-exported: a glob hides where things come from")
}

fn glossary(source: &Source) -> Vec<Finding> {
    if !source.in_src() && !source.path.starts_with("proto/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        let parts: BTreeSet<String> = words(line).flat_map(word_parts).collect();
        let replaced = REPLACED_WORDS
            .iter()
            .filter(|(word, _)| parts.contains(*word) || parts.contains(&format!("{word}s")));
        found.extend(replaced.map(|(word, instead)| {
            source.finding(at, format!("the glossary's word for `{word}` is {instead}"))
        }));
    }
    found
}

/// `["shard", "count"]` for `shard_count` and for `ShardCount`.
fn word_parts(word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in word.chars() {
        if c == '_' || c.is_uppercase() {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| c != '_') {
            part.extend(c.to_lowercase());
        }
    }
    parts
}

fn unfinished_code(source: &Source) -> Vec<Finding> {
    let calls = ["todo!", "unimplemented!", "dbg!"];
    let unfinished = |line: &str| calls.iter().any(|call| line.contains(call));
    lines_with(source, unfinished, "finish it, or leave it out and open an issue")
}

fn unfinished_notes(source: &Source) -> Vec<Finding> {
    // Spelt in halves, or this file would find itself.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let lines = source.text.lines().enumerate();
    let noted = lines.filter(|(_, line)| words(line).any(|word| notes.contains(&word)));
    noted.map(|(at, _)| source.finding(at, "do it, or open an issue: notes in code rot")).collect()
}

fn sleeping_tests(source: &Source) -> Vec<Finding> {
    let excused = SLEEPERS.iter().any(|(path, _)| *path == source.path);
    let sleeps = |line: &str| line.contains("thread::sleep") || line.contains("time::sleep");
    let lines = source.code.lines().enumerate();
    let is_test = |at| source.in_tests(at) || source.test_only;
    let asleep = lines.filter(|(at, line)| !excused && sleeps(line) && is_test(*at));
    let advice = "wait for the condition itself; where time is the subject, add the file and the \
                  reason to SLEEPERS in tests/tidy/rules.rs";
    asleep.map(|(at, _)| source.finding(at, advice)).collect()
}

fn unwrapping(source: &Source) -> Vec<Finding> {
    if !source.in_src() {
        return Vec::new();
    }
    let raw: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in source.production_code() {
        if line.contains(".unwrap()") {
            let advice = "return an error, or `expect(\"invariant: …\")` where none is possible";
            found.push(source.finding(at, advice));
        }
        let stated = raw[at].contains(".expect(\"invariant: ");
        if raw[at].contains(".expect(\"") && line.contains(".expect(") && !stated {
            let advice = "begin the text with `invariant: ` and say why failure is impossible, or \
                          return an error";
            found.push(source.finding(at, advice));
        }
    }
    found
}

fn ignored_tests(source: &Source) -> Vec<Finding> {
    let bare = |line: &str| {
        let line = line.trim();
        line.starts_with("#[ignore") && !line.contains('=')
    };
    lines_with(source, bare, "say what the test needs: #[ignore = \"…\"]")
}

fn lines_with(source: &Source, wrong: impl Fn(&str) -> bool, advice: &str) -> Vec<Finding> {
    let lines = source.code.lines().enumerate().filter(|(_, line)| wrong(line));
    lines.map(|(at, _)| source.finding(at, advice)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name of the rule, path, text at fault, text in order.
    type Case<'a> = (&'a str, &'a str, &'a str, &'a str);

    const CASES: [Case<'_>; 19] = [
        ("line width", "src/node/a.rs", WIDE, "// short"),
        ("import direction", "src/storage/a.rs", "use crate::net::x;", "use crate::types::x;"),
        (
            "import direction",
            "src/api/a.rs",
            "use crate::{types::T, storage::S};",
            "use crate::node::x;",
        ),
        ("import direction", "src/types.rs", "use crate::config::C;", "use std::fmt;"),
        ("import direction", "src/extra.rs", "fn f() {}", ""),
        ("import direction", "src/node/a.rs", "fn f() { crate::proto::v1::x() }", "// crate::api"),
        ("upward paths", "src/net/a.rs", "use super::super::node;", "use super::b;"),
        ("purity of protocol", "src/protocol/a.rs", "async fn f() {}", "fn f(now: Moment) {}"),
        ("purity of protocol", "src/protocol/a.rs", "use std::collections::HashMap;", TESTED),
        ("purity of protocol", "src/protocol/a.rs", "std::thread::yield_now()", "SocketAddr"),
        ("module names", "src/node/util.rs", "", ""),
        ("module names", "src/node/a.rs", "pub(crate) mod common;", "// mod common;"),
        ("glob re-exports", "src/node/a.rs", "pub(crate) use x::*;", "use super::*;"),
        ("glossary", "src/node/a.rs", "fn shard_count() {}", "fn sharded() {} // a shard"),
        ("glossary", "proto/a.proto", "message MasterNode {}", "message Node {}"),
        ("unfinished code", "src/node/a.rs", "fn f() { todo!() }", "// not `todo!`"),
        ("unwrapping", "src/node/a.rs", "x.unwrap()", "x.unwrap_or(1)"),
        ("unwrapping", "src/node/a.rs", "x.expect(\"a\")", "x.expect(\"invariant: a\")"),
        ("ignored tests", "tests/a.rs", "#[ignore]", "#[ignore = \"needs root\"]"),
    ];

    const WIDE: &str = "// 34567890 234567890 234567890 234567890 234567890 234567890 \
                        234567890 234567890 234567890 234567890 1";
    const TESTED: &str = "#[cfg(test)]\nmod tests {\n use std::collections::HashMap;\n}";

    fn broken(name: &str, path: &str, text: &str) -> usize {
        let rule = RULES.iter().find(|(rule, _)| *rule == name).unwrap().1;
        rule(&Source::new(path, text)).len()
    }

    #[test]
    fn every_rule_can_fail_and_can_pass() {
        for (name, path, wrong, right) in CASES {
            assert!(broken(name, path, wrong) > 0, "{name} lets pass: {wrong}");
            let right_path =
                if wrong.is_empty() || path == "src/extra.rs" { "src/lib.rs" } else { path };
            assert_eq!(broken(name, right_path, right), 0, "{name} refuses: {right}");
        }
    }

    #[test]
    fn lengths_are_measured() {
        let body = |lines: usize| format!("fn f() {{\n{}}}\n", "x();\n".repeat(lines));
        assert_eq!(broken("function length", "src/a.rs", &body(58)), 0);
        assert_eq!(broken("function length", "src/a.rs", &body(59)), 1);
        assert_eq!(broken("file length", "src/a.rs", &body(498)), 0);
        assert_eq!(broken("file length", "src/a.rs", &body(499)), 1);
    }

    #[test]
    fn notes_and_sleeps_are_found() {
        let note = format!("// {}{}: later", "TO", "DO");
        assert_eq!(broken("unfinished notes", "src/a.rs", &note), 1);
        assert_eq!(broken("unfinished notes", "src/a.rs", "// to do"), 0);
        let sleep = "fn f() { std::thread::sleep(x) }";
        assert_eq!(broken("sleeping tests", "tests/a.rs", sleep), 1);
        assert_eq!(broken("sleeping tests", "src/a.rs", sleep), 0);
        let inline = format!("#[cfg(test)]\nmod tests {{\n{sleep}\n}}");
        assert_eq!(broken("sleeping tests", "src/a.rs", &inline), 1);
    }
}
