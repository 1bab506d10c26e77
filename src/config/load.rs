//! Merges what flags, environment and a TOML file say into one [`Config`].
//!
//! Precedence: flag, then environment, then file, then default. A key that does not exist or a
//! value that cannot be used is an error that names where it stands, what it is and what is right.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::settings::{self, Draft, LogOptions, Setting};
use crate::config::{Config, Replication, validate};
use crate::protocol::quorum::level::majority;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: not valid TOML: {}", path.display(), source.message())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line at fault, from 1.
        line: usize,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// The file sets something that does not exist.
    #[error("{}: there is no setting {key:?}; {advice}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key with its table.
        key: String,
        /// What may have been meant.
        advice: String,
    },
    /// A value cannot be read as what it should be.
    #[error("{origin} is {value:?}: {problem}")]
    BadValue {
        /// Where it stands.
        origin: Origin,
        /// What was given.
        value: String,
        /// What is right.
        problem: String,
    },
    /// Values that can be read but not used.
    #[error(transparent)]
    Unsound(#[from] validate::Unsound),
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag on the command line.
    Flag(&'static str),
    /// An environment variable.
    Variable(String),
    /// A key of a file.
    File(PathBuf, String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "--{name}"),
            Origin::Variable(name) => f.write_str(name),
            Origin::File(path, key) => write!(f, "{}: {key}", path.display()),
        }
    }
}

/// One setting as a source gives it.
#[derive(Clone)]
pub struct Given {
    /// What is set.
    pub setting: &'static Setting,
    /// To what.
    pub value: String,
    /// Where.
    pub origin: Origin,
}

/// A configuration ready for use.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The node's.
    pub config: Config,
    /// The logs'.
    pub log: LogOptions,
    /// Threads that serve requests; one per core when not said.
    pub worker_threads: Option<usize>,
    /// What an operator should know although it is allowed.
    pub warnings: Vec<String>,
}

/// Merges a file, if any, with what flags and environment give.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn load(file: Option<&Path>, given: &[Given]) -> Result<Loaded, ConfigError> {
    let mut draft = Draft::default();
    if let Some(path) = file {
        for given in read_file(path)? {
            apply(&mut draft, &given)?;
        }
    }
    for given in given {
        apply(&mut draft, given)?;
    }
    finish(draft)
}

fn apply(draft: &mut Draft, given: &Given) -> Result<(), ConfigError> {
    (given.setting.set)(draft, &given.value).map_err(|problem| ConfigError::BadValue {
        origin: given.origin.clone(),
        value: given.value.clone(),
        problem,
    })
}

fn finish(draft: Draft) -> Result<Loaded, ConfigError> {
    let replication = replication(&draft);
    let mut config = draft.config;
    config.replication = replication;
    config.name = draft.name.unwrap_or_else(|| format!("node-{}", config.peer_listen.port()));
    let warnings = validate::check(&config)?;
    let Draft { log, worker_threads, .. } = draft;
    Ok(Loaded { config, log, worker_threads, warnings })
}

/// N, R and W when any of them is given: N by default as always, R and W by default majorities.
fn replication(draft: &Draft) -> Option<Replication> {
    draft.factor.or(draft.read_quorum).or(draft.write_quorum)?;
    let factor = draft.factor.unwrap_or(Replication::default().factor);
    let quorum = |given: Option<u32>| given.unwrap_or(majority(factor));
    Some(Replication {
        factor,
        read_quorum: quorum(draft.read_quorum),
        write_quorum: quorum(draft.write_quorum),
    })
}

fn read_file(path: &Path) -> Result<Vec<Given>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let table: toml::Table = toml::from_str(&text).map_err(|source| ConfigError::NotToml {
        path: path.to_owned(),
        line: source.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count()),
        source: Box::new(source),
    })?;
    let mut given = Vec::new();
    gather(path, "", &table, &mut given)?;
    Ok(given)
}

/// Collects the settings of one table, and of the tables of sections in it.
fn gather(
    path: &Path,
    section: &str,
    table: &toml::Table,
    given: &mut Vec<Given>,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name = key.replace('_', "-");
        let found = settings::all().find(|s| s.section == section && s.name == name);
        match (found, value) {
            (Some(setting), value) => given.push(from_file(path, setting, value)?),
            (None, toml::Value::Table(inner)) if section.is_empty() && is_section(&name) => {
                gather(path, &name, inner, given)?;
            }
            (None, _) => return Err(unknown(path, section, key)),
        }
    }
    Ok(())
}

fn is_section(name: &str) -> bool {
    settings::all().any(|setting| setting.section == name)
}

fn from_file(
    path: &Path,
    setting: &'static Setting,
    value: &toml::Value,
) -> Result<Given, ConfigError> {
    let origin = Origin::File(path.to_owned(), setting.path());
    match plain_text(value, setting.is_list()) {
        Some(value) => Ok(Given { setting, value, origin }),
        None => Err(ConfigError::BadValue {
            origin,
            value: format!("a TOML {}", value.type_str()),
            problem: format!("give one value: {}", setting.placeholder),
        }),
    }
}

/// A TOML value as a flag would have it.
fn plain_text(value: &toml::Value, is_list: bool) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(items) if is_list => {
            let items: Option<Vec<String>> =
                items.iter().map(|item| plain_text(item, false)).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

fn unknown(path: &Path, section: &str, key: &str) -> ConfigError {
    let name = key.replace('_', "-");
    let advice = match settings::all().find(|setting| setting.name == name) {
        Some(setting) if setting.section.is_empty() => {
            format!("{name} stands at the top, before any table")
        }
        Some(setting) => format!("{name} stands in the table [{}]", setting.section),
        None => nearby(section),
    };
    let key = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
    ConfigError::UnknownKey { path: path.to_owned(), key, advice }
}

/// What a table may hold.
fn nearby(section: &str) -> String {
    let in_section = settings::all().filter(|setting| setting.section == section);
    let mut names: Vec<String> = in_section.map(|setting| setting.name.to_owned()).collect();
    if section.is_empty() {
        let mut tables: Vec<String> = settings::all()
            .filter(|setting| !setting.section.is_empty())
            .map(|setting| format!("[{}]", setting.section))
            .collect();
        tables.dedup();
        names.extend(tables);
    }
    let place = if section.is_empty() { "at the top" } else { "here" };
    format!("{place} are: {}", names.join(", "))
}

#[cfg(test)]
mod tests;
