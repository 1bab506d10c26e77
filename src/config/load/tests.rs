use std::time::Duration;

use super::*;

fn given(origin: fn(&'static str) -> Origin, pairs: &[(&'static str, &str)]) -> Vec<Given> {
    let find = |name: &str| settings::all().find(|s| s.name == name).expect("a known setting");
    let one = |(name, value): &(&'static str, &str)| Given {
        setting: find(name),
        value: (*value).to_owned(),
        origin: origin(name),
    };
    pairs.iter().map(one).collect()
}

fn flags(pairs: &[(&'static str, &str)]) -> Vec<Given> {
    given(Origin::Flag, pairs)
}

fn load_toml(text: &str, given: &[Given]) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("coterie.toml");
    std::fs::write(&path, text).expect("written");
    load(Some(&path), given)
}

fn toml_error(text: &str) -> String {
    let error = load_toml(text, &[]).expect_err("an error").to_string();
    error.split_once("coterie.toml").map(|(_, rest)| rest.to_owned()).unwrap_or(error)
}

#[test]
fn nothing_given_is_the_defaults() {
    let loaded = load(None, &[]).expect("defaults");
    assert_eq!(loaded.config, Config { name: "node-7401".into(), ..Config::default() });
    assert_eq!(loaded.log, LogOptions::default());
    assert!(loaded.warnings.is_empty());
}

#[test]
fn what_is_given_later_wins_and_the_file_comes_first() {
    let text = "vnodes = 1";
    assert!(toml_error(text).contains("vnodes stands in the table [ring]"));
    let text = "name = 'file'\n[ring]\nvnodes = 1\nzone = 'z'";
    let loaded = load_toml(text, &flags(&[("vnodes", "2")])).expect("loads");
    assert_eq!((loaded.config.vnodes, loaded.config.zone.as_str()), (2, "z"));
    assert_eq!(loaded.config.name, "file");
}

#[test]
fn keys_may_be_in_kebab_or_snake_case_and_values_text_or_numbers() {
    let text = "
        data-dir = '/data'
        peer_listen = '127.0.0.1:9001'
        worker-threads = 3
        seeds = ['127.0.0.1:7501', 'other:7401']
        [limits]
        value_bytes_max = '2MiB'
        key-bytes-max = 100
        request-timeout = '5s'
        [hints]
        hint_window = '1h'
        [replication]
        sloppy = true
        [log]
        log-format = 'json'
    ";
    let Loaded { config, log, worker_threads, .. } = load_toml(text, &[]).expect("loads");
    assert_eq!(config.data_dir, PathBuf::from("/data"));
    assert_eq!(config.name, "node-9001");
    assert_eq!(config.seeds, ["127.0.0.1:7501", "other:7401"]);
    assert_eq!((config.limits.value_bytes_max, config.limits.key_bytes_max), (2 << 20, 100));
    assert_eq!(config.limits.request_timeout, Duration::from_secs(5));
    assert_eq!(config.hints.window, Duration::from_secs(3600));
    assert!(config.sloppy);
    assert_eq!((log.format, worker_threads), (settings::LogFormat::Json, Some(3)));
}

#[test]
fn errors_of_a_file_name_the_key_the_value_and_what_is_right() {
    let cases = [
        ("nmae = 'a'", ": there is no setting \"nmae\"; at the top are: name, data-dir,"),
        ("[ring]\nvnode = 1", ": there is no setting \"ring.vnode\"; here are: zone, vnodes,"),
        ("[ring]\nname = 'a'", ": there is no setting \"ring.name\"; name stands at the top"),
        ("[rings]\nvnodes = 1", ": there is no setting \"rings\"; at the top are"),
        ("[ring]\nvnodes = 'many'", ": ring.vnodes is \"many\": give a whole number"),
        ("[ring]\nvnodes = [1]", ": ring.vnodes is \"a TOML array\": give one value: COUNT"),
        ("[hints]\nhint-window = 3", ": hints.hint-window is \"3\": a duration is"),
        ("[limits]\nvalue-bytes-max = '1MB'", ": limits.value-bytes-max is \"1MB\": a size is"),
        ("listen = '7400'", ": listen is \"7400\": give an address and a port"),
        ("worker-threads = 0", ": worker-threads is \"0\": give a number from 1 to 1024"),
        ("seeds = ['a']", ": seeds is \"a\": \"a\" is not host:port"),
        ("name = 'a'\nname = ", ", line 2: not valid TOML: "),
    ];
    for (text, start) in cases {
        let error = toml_error(text);
        assert!(error.starts_with(start), "{text:?}: {error:?} does not start with {start:?}");
        assert!(!error.contains('\n'), "{error:?} has more than one line");
    }
}

#[test]
fn errors_of_flags_and_variables_name_them() {
    let error = |given: &[Given]| load(None, given).expect_err("an error").to_string();
    let flag = error(&flags(&[("request-timeout", "2")]));
    assert!(flag.starts_with("--request-timeout is \"2\": a duration is"), "{flag}");
    let variable = |_| Origin::Variable(String::from("COTERIE_CAPACITY"));
    let variable = error(&given(variable, &[("capacity", "big")]));
    assert!(variable.starts_with("COTERIE_CAPACITY is \"big\": give a number"), "{variable}");
    let unsound = error(&flags(&[("partitions", "3")]));
    assert!(unsound.starts_with("partitions is 3: give a power of two"), "{unsound}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(Some(Path::new("/nonexistent/c.toml")), &[]).expect_err("an error");
    assert!(
        error.to_string().starts_with("cannot read the configuration file /nonexistent/c.toml")
    );
}

#[test]
fn quorums_default_to_majorities_once_any_of_the_three_is_given() {
    let cases: [(&[(&'static str, &str)], _); 4] = [
        (&[], None),
        (&[("replication-factor", "5")], Some((5, 3, 3))),
        (&[("read-quorum", "1")], Some((3, 1, 2))),
        (&[("replication-factor", "1")], Some((1, 1, 1))),
    ];
    for (pairs, expected) in cases {
        let replication = load(None, &flags(pairs)).expect("loads").config.replication;
        let found = replication.map(|r| (r.factor, r.read_quorum, r.write_quorum));
        assert_eq!(found, expected, "{pairs:?}");
    }
}

#[test]
fn every_setting_accepts_its_own_default() {
    for setting in settings::all().filter(|setting| !setting.default_text().is_empty()) {
        let given =
            [Given { setting, value: setting.default_text(), origin: Origin::Flag(setting.name) }];
        let loaded = load(None, &given).unwrap_or_else(|error| panic!("{error}"));
        let plain = Config { name: "node-7401".into(), ..Config::default() };
        let replication = loaded.config.replication.or(plain.replication);
        assert!(replication.is_none() || replication == Some(Replication::default()));
        assert_eq!(Config { replication: None, ..loaded.config }, plain, "{}", setting.name);
    }
}

#[test]
fn the_documentation_lists_every_setting_as_it_is() {
    let page = include_str!("../../../docs/configuration.md");
    for setting in settings::all() {
        let default = setting.default_text();
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let row = format!(
            "| `{}` | `{}` | {default} | {} |",
            setting.path(),
            setting.variable(),
            setting.help
        );
        assert!(page.contains(&row), "docs/configuration.md lacks the row\n{row}");
    }
}
