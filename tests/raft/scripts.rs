//! Scripts of the core: commands, and below each what the replicas then say and do.
//!
//! A line that begins with `> ` is a command, one with `#` or without text is kept, and all others
//! are what came of the command above them. A script must come out as it is written;
//! `COTERIE_GOLDEN=update cargo test --test raft scripts` writes what came out instead.

mod stage;

use std::fs;
use std::path::{Path, PathBuf};

use stage::Stage;

#[test]
fn scripts_come_out_as_written() {
    let updating = std::env::var_os("COTERIE_GOLDEN").is_some_and(|value| value == "update");
    let paths = script_paths();
    assert!(paths.len() >= 12, "only {} scripts were found", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let written = fs::read_to_string(&path).expect("a script is UTF-8");
        let played = play(&written);
        if updating {
            fs::write(&path, &played).expect("scripts can be written");
        } else if let Some(difference) = first_difference(&written, &played) {
            wrong.push(format!("{}: {difference}", path.display()));
        }
    }
    let advice = "if the new output is right: COTERIE_GOLDEN=update cargo test --test raft scripts";
    assert!(wrong.is_empty(), "\n{}\n{advice}", wrong.join("\n"));
}

fn script_paths() -> Vec<PathBuf> {
    let folder = Path::new(file!()).with_extension("");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("the scripts' folder can be listed");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    let mut scripts: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|kind| kind == "txt")).collect();
    scripts.sort();
    scripts
}

/// The script as it comes out.
fn play(script: &str) -> String {
    let mut stage = Stage::default();
    let mut out = String::new();
    for line in script.lines() {
        let command = line.strip_prefix("> ");
        if command.is_some() || line.is_empty() || line.starts_with('#') {
            out += line;
            out.push('\n');
        }
        for said in command.map(|command| stage.command(command)).unwrap_or_default() {
            out += said.trim_end();
            out.push('\n');
        }
    }
    out
}

fn first_difference(written: &str, played: &str) -> Option<String> {
    let mut pairs = written.lines().zip(played.lines()).enumerate();
    let differs = pairs.find(|(_, (old, new))| old != new);
    if let Some((at, (old, new))) = differs {
        return Some(format!("line {}:\n  written: {old}\n  played:  {new}", at + 1));
    }
    let (old, new) = (written.lines().count(), played.lines().count());
    (old != new).then(|| format!("{old} lines are written, {new} were played"))
}

#[test]
fn a_script_that_says_something_else_is_found() {
    let script = "# One replica.\n> cluster voters=1\n> campaign 1\n> status\n";
    let played = play(script);
    assert!(played.contains("leader t1"), "{played}");
    assert_eq!(first_difference(&played, &play(&played)), None);
    assert!(first_difference(&played.replace("t1", "t2"), &played).is_some());
    assert!(first_difference(script, &played).is_some());
}
