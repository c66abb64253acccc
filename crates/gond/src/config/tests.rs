use secrecy::ExposeSecret as _;

use super::*;

fn load(text: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::from_parts(&Flags { file: Some(file.path().to_owned()), ..flags }, &environment)
}

#[test]
fn flags_beat_variables_beat_the_file() {
    let text = "data_dir = '/a'\n[network]\nmtu = 1400\n[admin]\nuser = 'ann'\n";
    let environment = [("GON_DATA_DIR", "/b"), ("GON_NETWORK_MTU", "1450"), ("GON_ADMIN_PASSWORD", "secret")];
    let flags = Flags { data_dir: Some("/c".into()), ..Flags::default() };
    let config = load(text, &environment, flags).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/c"));
    assert_eq!(config.network.mtu, 1450);
    assert_eq!(config.admin.user, "ann");
    assert_eq!(config.admin.password.unwrap().expose_secret(), "secret");
}

#[test]
fn mistakes_are_explained_where_they_stand() {
    let message = |text: &str, environment: &[(&str, &str)]| {
        let error = load(text, environment, Flags::default()).unwrap_err().to_string();
        error.rsplit_once("/tmp/").map_or(error.clone(), |(_, rest)| {
            rest.split_once(": ").map_or(rest.to_owned(), |(_, rest)| rest.to_owned())
        })
    };
    assert!(message("\n[network]\nmtoo = 1\n", &[]).starts_with("line 3: unknown field `mtoo`"));
    assert!(message("[network]\npublic_pool = '203.0.113.5/24'\n", &[]).contains("without host bits"));
    assert_eq!(message("", &[("GON_NETWORK_MTU", "many")]), "GON_NETWORK_MTU: 'many' is not a whole number");
    assert!(message("", &[("GON_LISTEN", "nowhere")]).starts_with("GON_LISTEN: "));
    assert!(message("[node]\navailability_zone = 'A'\n", &[]).starts_with("node.availability_zone: "));
    assert!(message("[log]\nformat = 'yaml'\n", &[]).contains("unknown variant `yaml`"));
}

#[test]
fn a_secret_is_not_repeated() {
    let error = load("[admin]\npassword = ['hunter2']\n", &[], Flags::default()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    let config = load("[admin]\npassword = 'hunter2'\n", &[], Flags::default()).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// Settings that the configuration file may have but `text` does not mention: for the test that the annotated file
/// is complete.
fn unmentioned(text: &str) -> Vec<&'static str> {
    SETTINGS
        .iter()
        .map(|(setting, _)| *setting)
        .filter(|setting| {
            let (section, key) = setting.split_once('.').unwrap_or(("", setting));
            let from = if section.is_empty() { Some(0) } else { text.find(&format!("\n[{section}]")) };
            !from.is_some_and(|from| {
                text[from..].lines().any(|l| {
                    l.trim_start_matches("# ").trim_start_matches("= ").starts_with(&format!("{key} ="))
                })
            })
        })
        .collect()
}

#[test]
fn the_annotated_file_has_every_setting_and_is_the_default() {
    let text = include_str!("../../../../dist/etc/gon.toml");
    assert_eq!(unmentioned(text), Vec::<&str>::new());
    let config = load(text, &[], Flags::default()).unwrap();
    let default = Config { data_dir: config.data_dir.clone(), ..Config::default() };
    assert_eq!(format!("{config:?}"), format!("{default:?}"));
    // The commented-out ones are right as well.
    let all: String = text.lines().map(|l| l.strip_prefix("# = ").unwrap_or(l).to_owned() + "\n").collect();
    load(&all, &[], Flags::default()).unwrap();
}

#[test]
fn lists_and_maps_come_from_variables_and_files() {
    let text = "[node]\nlabels = { disk = 'nvme' }\n[control]\nservers = ['a']\n";
    let config = load(text, &[], Flags::default()).unwrap();
    assert_eq!(config.node.labels["disk"], "nvme");
    let environment = [
        ("GON_NODE_LABELS", "rack=b2, disk=hdd"),
        ("GON_CONTROL_SERVERS", "control-1, 192.0.2.2,"),
        ("GON_CLUSTER_ENDPOINTS", "https://control-1:2379,http://[2001:db8::1]:2379"),
    ];
    let config = load(text, &environment, Flags::default()).unwrap();
    assert_eq!(format!("{:?}", config.node.labels), r#"{"disk": "hdd", "rack": "b2"}"#);
    assert_eq!(config.control.servers, ["control-1", "192.0.2.2"]);
    assert_eq!(config.cluster.endpoints.len(), 2);
}

#[test]
fn secrets_may_stand_in_files_of_their_own() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "amqps://gon:hunter2@bus:5671/gon\n").unwrap();
    let path = file.path().to_str().unwrap();
    let config = load("", &[("GON_BUS_URL_FILE", path)], Flags::default()).unwrap();
    assert_eq!(config.bus.url.as_ref().unwrap().expose_secret(), "amqps://gon:hunter2@bus:5671/gon");
    assert!(!format!("{config:?}").contains("hunter2"));
    let both = [("GON_BUS_URL_FILE", path), ("GON_BUS_URL", "amqp://x@y/z")];
    assert!(load("", &both, Flags::default()).unwrap_err().to_string().starts_with("bus.url_file: "));
    std::fs::write(file.path(), "\n").unwrap();
    assert!(load("", &[("GON_BUS_URL_FILE", path)], Flags::default()).is_err());
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (variable, value) in [
        ("GON_BUS_URL", "http://hunter2@bus/"),
        ("GON_DATABASE_URL", "mysql://hunter2@db/"),
        ("GON_CLUSTER_ENDPOINTS", "control-1:2379"),
        ("GON_CLUSTER_PREFIX", "a/b"),
        ("GON_CONTROL_SERVERS", "control-1:8081"),
        ("GON_CONTROL_SERVERS", "-x"),
        ("GON_NODE_LABELS", "rack"),
        ("GON_NODE_LABELS", "ra ck=1"),
        ("GON_NODE_ADDRESS", "0.0.0.0"),
        ("GON_NODE_ADDRESS", "here"),
        ("GON_TLS_API", "perhaps"),
        ("GON_LIMITS_CONNECTIONS", "0"),
        ("GON_LIMITS_CONNECTIONS_PER_ADDRESS", "5000"),
        ("GON_LIMITS_HEADER_TIMEOUT_SECONDS", "3600"),
        ("GON_CONTAINER_SOCKET", "docker.sock"),
        ("GON_ROLES_STORAGE_AGENT", "9093"),
    ] {
        let error = load("", &[(variable, value)], Flags::default()).unwrap_err().to_string();
        let setting = variable.trim_start_matches("GON_").to_ascii_lowercase().replacen('_', ".", 1);
        assert!(error.contains(variable) || error.starts_with(&setting), "{variable}={value}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn hosts_are_shown_without_what_is_secret() {
    assert_eq!(host_of("amqp://u:p@bus:5672/v", &["amqp"]), Some("bus:5672"));
    assert_eq!(host_of("https://[::1]:2379", &["https"]), Some("[::1]:2379"));
    assert_eq!(host_of("https://a b", &["https"]), None);
    assert_eq!(host_of("ftp://a", &["https"]), None);
}
