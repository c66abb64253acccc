//! What a configuration must be beyond its shape.

use std::net::IpAddr;

use secrecy::ExposeSecret as _;

use super::{Config, ConfigError};

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting, what: &str| Err(ConfigError::Value { setting, what: what.to_owned() });
        if self.data_dir.as_os_str().is_empty() {
            return wrong("data_dir", "must not be empty");
        }
        self.check_node()?;
        self.check_meeting_places()?;
        if !(576..=9000).contains(&self.network.mtu) {
            return wrong("network.mtu", "must be from 576 to 9000");
        }
        if !(60..=86_400).contains(&self.network.lease_seconds) {
            return wrong("network.lease_seconds", "must be from 60 to 86400");
        }
        if !(1..=600).contains(&self.compute.stop_grace_seconds) {
            return wrong("compute.stop_grace_seconds", "must be from 1 to 600");
        }
        if self.compute.placement_patience_seconds > 86_400 {
            return wrong("compute.placement_patience_seconds", "must be at most 86400");
        }
        if !self.container.socket.is_absolute() {
            return wrong("container.socket", "must be an absolute path");
        }
        let limits = &self.limits;
        for (setting, value, most) in [
            ("limits.connections", limits.connections, 65_536),
            ("limits.connections_per_address", limits.connections_per_address, limits.connections),
            ("limits.requests", limits.requests, 65_536),
            ("limits.header_timeout_seconds", limits.header_timeout_seconds, 120),
            ("database.connections", self.database.connections, 256),
        ] {
            if !(1..=most).contains(&value) {
                return wrong(setting, &format!("must be from 1 to {most}"));
            }
        }
        Ok(())
    }

    fn check_node(&self) -> Result<(), ConfigError> {
        let wrong = |setting, what: &str| Err(ConfigError::Value { setting, what: what.to_owned() });
        let zone = &self.node.availability_zone;
        let zone_is_good = (2..=20).contains(&zone.len())
            && zone.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && zone.ends_with(|c: char| c.is_ascii_lowercase());
        if !zone_is_good {
            return wrong(
                "node.availability_zone",
                "must be 2 to 20 of a-z, 0-9 and -, ending in a letter (local-1a)",
            );
        }
        if let Some(name) = &self.node.name
            && !is_node_name(name)
        {
            return wrong(
                "node.name",
                "must be 1 to 50 of a-z, 0-9, '.' and '-', beginning with a letter or digit",
            );
        }
        if !(1..=64).contains(&self.node.cpu_overcommit) {
            return wrong("node.cpu_overcommit", "must be from 1 to 64");
        }
        if let Some(address) = self.node.address
            && (address.is_unspecified() || address.is_multicast())
        {
            return wrong("node.address", "must be an address of this machine that the others reach");
        }
        if self.node.labels.len() > 32 {
            return wrong("node.labels", "at most 32");
        }
        for (key, value) in &self.node.labels {
            let good = |text: &str| {
                text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
            };
            if key.is_empty() || key.len() > 63 || value.len() > 63 || !good(key) || !good(value) {
                return wrong(
                    "node.labels",
                    "keys and values are up to 63 of A-Z, a-z, 0-9, '-', '_', '.' and '/'",
                );
            }
        }
        Ok(())
    }

    /// Where the services meet: PostgreSQL, RabbitMQ, etcd, each other.
    fn check_meeting_places(&self) -> Result<(), ConfigError> {
        let wrong = |setting, what: String| Err(ConfigError::Value { setting, what });
        if let Some(url) = &self.database.url
            && !["postgres://", "postgresql://"].iter().any(|s| url.expose_secret().starts_with(s))
        {
            return wrong("database.url", "must begin with postgres://".to_owned());
        }
        if let Some(url) = &self.bus.url
            && host_of(url.expose_secret(), &["amqp", "amqps"]).is_none()
        {
            // Not repeated: it holds a password.
            return wrong(
                "bus.url",
                "must be amqp://USER:PASSWORD@HOST[:PORT]/VHOST or amqps://…".to_owned(),
            );
        }
        for endpoint in &self.cluster.endpoints {
            if host_of(endpoint, &["http", "https"]).is_none() {
                return wrong(
                    "cluster.endpoints",
                    "each must be http://HOST:PORT or https://HOST:PORT".to_owned(),
                );
            }
        }
        let prefix = &self.cluster.prefix;
        if !(1..=64).contains(&prefix.len())
            || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return wrong("cluster.prefix", "must be 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'".to_owned());
        }
        for server in &self.control.servers {
            if !is_host(server) {
                return wrong(
                    "control.servers",
                    format!("'{server}' is neither a host name nor an address; ports are those of [roles]"),
                );
            }
        }
        Ok(())
    }
}

/// As the schema has it.
#[must_use]
pub fn is_node_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=50).contains(&name.len())
        && name.bytes().all(|b| allowed(b) || b == b'.' || b == b'-')
        && name.bytes().next().is_some_and(allowed)
}

/// A DNS name or an address, without a port.
fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
        || ((1..=253).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
            && !text.starts_with(['-', '.']))
}

/// Host and port of a URL, without whatever is secret in it. `None` if it is not of one of these schemes.
#[must_use]
pub fn host_of<'a>(url: &'a str, schemes: &[&str]) -> Option<&'a str> {
    let (scheme, rest) = url.split_once("://")?;
    if !schemes.contains(&scheme) {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.0,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    is_host(name).then_some(host)
}
