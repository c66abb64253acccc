//! `gond config check`: what a configuration means, and what about it is worth a second thought.

use gon_tls::{Role, TlsDir};
use secrecy::ExposeSecret as _;

use crate::config::{ApiTls, Config, host_of};
use crate::terminal;

/// Says it.
pub fn check(config: &Config) {
    terminal::line("The configuration is good.");
    for (what, value) in explain(config) {
        terminal::line(&format!("  {what:<15} {value}"));
    }
    for remark in remarks(config) {
        terminal::line(&format!("  note: {remark}"));
    }
}

fn explain(config: &Config) -> Vec<(&'static str, String)> {
    let database = match &config.database.url {
        Some(url) => {
            let host =
                host_of(url.expose_secret(), &["postgres", "postgresql"]).filter(|host| !host.is_empty());
            host.map_or_else(|| "as configured".to_owned(), |host| format!("PostgreSQL at {host}"))
        }
        None => "private, for 'gond standalone' only".to_owned(),
    };
    let bus = match &config.bus.url {
        Some(url) => {
            let host = host_of(url.expose_secret(), &["amqp", "amqps"]).unwrap_or_default();
            format!("RabbitMQ at {host}")
        }
        None => "in each process".to_owned(),
    };
    let cluster = if config.cluster.endpoints.is_empty() {
        "in each process".to_owned()
    } else {
        format!("etcd at {}, keys below /{}", config.cluster.endpoints.join(", "), config.cluster.prefix)
    };
    let control = if config.control.servers.is_empty() {
        "on this machine".to_owned()
    } else {
        config.control.servers.join(", ")
    };
    let labels: Vec<String> =
        config.node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut lines = vec![
        ("data directory", config.data_dir.display().to_string()),
        ("images", config.images_dir().display().to_string()),
        ("listen", config.listen.to_string()),
        ("database", database),
        ("bus", bus),
        ("cluster", cluster),
        ("controllers", control),
        ("certificates", certificates(config)),
        ("public pool", config.network.public_pool.to_string()),
    ];
    if !labels.is_empty() {
        lines.push(("labels", labels.join(" ")));
    }
    lines
}

/// Which roles have a certificate here, whose, and how long yet.
fn certificates(config: &Config) -> String {
    let dir = TlsDir::new(&config.tls_dir());
    if !config.has_tls() {
        return format!(
            "none in {}: services use loopback and sockets of this machine",
            dir.path().display()
        );
    }
    let mut held = Vec::new();
    for role in Role::ALL {
        match dir.facts(*role) {
            Ok(Some(facts)) => held.push(format!("{} until {}", facts.identity, facts.not_after.date())),
            Ok(None) => {}
            Err(error) => held.push(format!("{role}: {error}")),
        }
    }
    let held = if held.is_empty() { "of no role".to_owned() } else { held.join(", ") };
    format!("{held} (in {})", dir.path().display())
}

/// What works but may not be meant.
fn remarks(config: &Config) -> Vec<String> {
    let mut remarks = Vec::new();
    if config.bus.url.is_some() == config.cluster.endpoints.is_empty() {
        remarks.push("bus.url and cluster.endpoints usually come together".to_owned());
    }
    if !config.control.servers.is_empty() && !config.has_tls() {
        remarks.push("control.servers is not used before this server has joined ('gond join')".to_owned());
    }
    if !config.listen.ip().is_loopback() && (config.tls.api == ApiTls::Off || !config.has_tls()) {
        remarks.push(format!("{} is reachable by others without TLS", config.listen));
    }
    let roles = &config.roles;
    let open = [
        roles.network_controller,
        roles.instance_manager,
        roles.hypervisor_agent,
        roles.network_agent,
        roles.container_agent,
        roles.storage_agent,
    ];
    if !config.has_tls() && open.iter().any(|address| !address.ip().is_loopback()) {
        remarks.push(
            "addresses of [roles] that are not loopback need certificates: those roles will not start"
                .to_owned(),
        );
    }
    if config.bus.url.as_ref().is_some_and(|url| url.expose_secret().starts_with("amqp://")) {
        remarks.push(
            "bus.url is amqp: the password crosses the network in the clear; amqps does not".to_owned(),
        );
    }
    remarks
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn what_is_secret_is_not_explained() {
        let mut config = Config { data_dir: "/nowhere".into(), ..Config::default() };
        config.bus.url = Some(SecretString::from("amqp://gon:hunter2@bus:5672/gon"));
        config.database.url = Some(SecretString::from("postgres://gon:hunter2@db:5432/gon"));
        config.listen = "0.0.0.0:8080".parse().unwrap();
        config.roles.storage_agent = "0.0.0.0:9093".parse().unwrap();
        let text = format!("{:?} {:?}", explain(&config), remarks(&config));
        assert!(!text.contains("hunter2"), "{text}");
        for part in [
            "RabbitMQ at bus:5672",
            "PostgreSQL at db:5432",
            "will not start",
            "in the clear",
            "usually come together",
            "without TLS",
        ] {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
        config = Config::default();
        config.data_dir = "/nowhere".into();
        assert_eq!(remarks(&config), Vec::<String>::new(), "the default needs no remark");
    }
}
