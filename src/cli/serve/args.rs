//! The flags of `coterie serve`, made from the list of settings.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::cli::failure::Failure;
use crate::config::load::{ConfigError, Given, Loaded, Origin, load};
use crate::config::settings::{self, Setting};

const CONFIG: &str = "config";

/// What flags and environment say about a node.
#[derive(Clone, Default)]
pub(crate) struct ServeArgs {
    file: Option<PathBuf>,
    given: Vec<Given>,
}

impl std::fmt::Debug for ServeArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let given = self.given.iter().map(|given| (given.setting.name, &given.value));
        f.debug_map().entries(given).finish()
    }
}

impl ServeArgs {
    /// The configuration that they make, together with the file if they name one.
    ///
    /// # Errors
    /// The first thing that is wrong, as one line.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        load(self.file.as_deref(), &self.given).map_err(|error| {
            let advice = match error {
                ConfigError::Unreadable { .. } | ConfigError::NotToml { .. } => "",
                _ => " (see `coterie serve --help`)",
            };
            Failure::usage(format!("{error}{advice}"))
        })
    }
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(CONFIG)
            .long(CONFIG)
            .env("COTERIE_CONFIG")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file with settings; flags and environment win over it");
        let args = std::iter::once(file).chain(settings::all().map(arg));
        command.args(args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(setting: &'static Setting) -> Arg {
    let default = setting.default_text();
    let help = match default.as_str() {
        "" => setting.help.to_owned(),
        default => format!("{} [default: {default}]", setting.help),
    };
    let arg = Arg::new(setting.name)
        .long(setting.name)
        .env(setting.variable())
        .value_name(setting.placeholder)
        .help_heading(heading(setting))
        .hide_env_values(true)
        .help(help);
    if setting.is_switch() {
        return arg.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    if setting.is_list() { arg.action(ArgAction::Append) } else { arg }
}

fn heading(setting: &Setting) -> &'static str {
    match setting.section {
        "" => "The node",
        "ring" => "The ring",
        "replication" => "Replication",
        "hints" => "Hinted handoff",
        "limits" => "Limits",
        "storage" => "Storage",
        _ => "Logs",
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = ServeArgs::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>(CONFIG).cloned();
        self.given = settings::all().filter_map(|setting| given(setting, matches)).collect();
        Ok(())
    }
}

fn given(setting: &'static Setting, matches: &ArgMatches) -> Option<Given> {
    let values: Vec<String> = matches.get_many::<String>(setting.name)?.cloned().collect();
    let origin = match matches.value_source(setting.name)? {
        ValueSource::EnvVariable => Origin::Variable(setting.variable().to_owned()),
        _ => Origin::Flag(setting.name),
    };
    Some(Given { setting, value: values.join(","), origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Loaded, Failure> {
        let command = ServeArgs::augment_args(Command::new("serve"));
        let words = std::iter::once("serve").chain(line.split_whitespace());
        let matches = command.try_get_matches_from(words).expect("flags that exist");
        ServeArgs::from_arg_matches(&matches).expect("infallible").load()
    }

    #[test]
    fn flags_reach_the_configuration() {
        let line = "--name a --listen 127.0.0.1:1 --peer-listen 127.0.0.1:2 --seeds b:1,c:2 \
                    --seeds d:3 --zone z --capacity 2 --sloppy --value-bytes-max 2MiB \
                    --hint-window 1h --read-quorum 1";
        let config = parse(line).expect("loads").config;
        assert_eq!((config.name.as_str(), config.zone.as_str()), ("a", "z"));
        assert_eq!((config.listen.port(), config.peer_listen.port()), (1, 2));
        assert_eq!(config.seeds, ["b:1", "c:2", "d:3"]);
        assert!(config.sloppy);
        assert_eq!(config.limits.value_bytes_max, 2 << 20);
        assert_eq!(config.hints.window.as_secs(), 3600);
        assert_eq!(config.replication.map(|r| r.read_quorum), Some(1));
    }

    #[test]
    fn a_bad_flag_is_named_in_one_line() {
        let error = parse("--vnodes many").err().map(|error| error.to_string());
        let error = error.expect("an error");
        assert!(error.starts_with("--vnodes is \"many\": give a whole number"), "{error}");
    }

    #[test]
    fn a_switch_can_be_turned_off() {
        assert!(!parse("--sloppy=false").expect("loads").config.sloppy);
    }
}
