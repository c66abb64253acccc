//! `/etc/gon/gon.toml` of a server, as it is written once. What is there already is the operator's and stays.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::bail;
use ipnet::Ipv4Net;

use super::files;
use crate::admin::steps::Done;
use crate::config::External;

/// Where the configuration is.
pub const FILE: &str = "/etc/gon/gon.toml";

/// What a server's configuration says.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its zone, if it is a node.
    pub zone: Option<String>,
    /// The database, on a server of the control plane.
    pub database: Option<String>,
    /// etcd.
    pub cluster: Vec<String>,
    /// Servers of the control plane.
    pub control: Vec<String>,
    /// Where commands of the operator find the authority, on the server that has it.
    pub authority: Option<String>,
    /// The address by which other nodes reach this one, if it is a node.
    pub node: Option<IpAddr>,
    /// Labels of the node.
    pub labels: Vec<(String, String)>,
    /// Public addresses of the site.
    pub public_pool: Option<Ipv4Net>,
    /// How the world reaches them, if this is a node.
    pub external: Option<External>,
    /// MTU offered to guests.
    pub mtu: Option<u16>,
}

/// How the world reaches public addresses, as it is written.
fn written(external: &External) -> String {
    match external {
        External::Host => "host".to_owned(),
        External::OnLink(device) => format!("onlink:{device}"),
        External::Routed => "routed".to_owned(),
    }
}

/// Writes the configuration unless there is one.
pub fn write(site: &Site) -> anyhow::Result<Done> {
    let path = Path::new(FILE);
    if path.exists() {
        return Ok(Done::Said("kept as it is".to_owned()));
    }
    files::put(path, &render(site)?, files::PUBLIC)?;
    Ok(Done::Now)
}

/// A string of TOML. What would need escapes is no name, address or URL.
fn quoted(text: &str) -> anyhow::Result<String> {
    if text.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        bail!("'{}' cannot be written into a configuration", text.escape_debug());
    }
    Ok(format!("\"{text}\""))
}

fn list(all: &[String]) -> anyhow::Result<String> {
    let all: Vec<String> = all.iter().map(|s| quoted(s)).collect::<Result<_, _>>()?;
    Ok(format!("[{}]", all.join(", ")))
}

/// The configuration as text.
pub fn render(site: &Site) -> anyhow::Result<String> {
    let mut text = String::from(
        "# Written by 'gond admin init' or 'gond join'; yours from now on. Every setting is explained in\n\
         # /usr/share/gon/gon.toml, and 'gond config check' says what is wrong.\n\
         data_dir = \"/var/lib/gon\"\n",
    );
    if site.database.is_some() {
        text.push_str(
            "# The API and the console, over TLS with the site's certificate.\nlisten = \"0.0.0.0:8080\"\n",
        );
    }
    if let Some(url) = &site.database {
        let _ = write!(
            text,
            "\n[database]\n# Over the unix socket, as the accounts that pg_ident.conf names: no password.\nurl = {}\n",
            quoted(url)?
        );
    }
    let _ = write!(
        text,
        "\n[control]\n# Where agents find the controllers.\nservers = {}\n",
        list(&site.control)?
    );
    if !site.cluster.is_empty() {
        let _ = write!(text, "\n[cluster]\n# etcd.\nendpoints = {}\n", list(&site.cluster)?);
    }
    if let Some(dir) = &site.authority {
        let _ = write!(
            text,
            "\n[tls]\n# Where the authority is, for 'gond admin'; each service has a directory of its own (see its unit).\n\
             dir = {}\n",
            quoted(dir)?
        );
    }
    let _ = write!(text, "\n[node]\nname = {}\n", quoted(&site.name)?);
    if let Some(zone) = &site.zone {
        let _ = writeln!(text, "availability_zone = {}", quoted(zone)?);
    }
    if let Some(address) = site.node {
        let _ = writeln!(text, "address = \"{address}\"");
    }
    if !site.labels.is_empty() {
        text.push_str("\n[node.labels]\n");
        for (key, value) in &site.labels {
            let _ = writeln!(text, "{} = {}", quoted(key)?, quoted(value)?);
        }
    }
    if site.public_pool.is_some() || site.mtu.is_some() || site.node.is_some() {
        text.push_str("\n[network]\n");
        if let Some(pool) = site.public_pool {
            let _ = writeln!(text, "public_pool = \"{pool}\"");
        }
        if let Some(external) = &site.external {
            let _ = writeln!(
                text,
                "# How the world reaches them: host, onlink:DEVICE or routed.\nexternal = {}",
                quoted(&written(external))?
            );
        }
        if let Some(mtu) = site.mtu {
            let _ = writeln!(
                text,
                "# What the network between the servers carries, less the tunnel's headers.\nmtu = {mtu}"
            );
        }
        if let Some(IpAddr::V4(address)) = site.node {
            let _ = writeln!(
                text,
                "# Guests on other servers are reached from here.\noverlay_address = \"{address}\""
            );
        }
    }
    text.push_str("\n[roles]\n");
    let roles: &[(&str, u16)] = if site.database.is_some() {
        &[("network_controller", 8081), ("instance_manager", 8082)]
    } else {
        &[]
    };
    let agents: &[(&str, u16)] = if site.node.is_some() {
        &[
            ("hypervisor_agent", 9090),
            ("network_agent", 9091),
            ("container_agent", 9092),
            ("storage_agent", 9093),
        ]
    } else {
        &[]
    };
    for (role, port) in roles.iter().chain(agents) {
        let _ = writeln!(text, "{role} = \"0.0.0.0:{port}\"");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Flags};

    fn read(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gon.toml");
        std::fs::write(&file, text).unwrap();
        // Without the environment, in which somebody may have set something.
        Config::from_parts(&Flags { file: Some(file), ..Flags::default() }, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let site = Site {
            name: "control".to_owned(),
            zone: Some("seoul-1a".to_owned()),
            database: Some("postgres:///gon?host=/run/postgresql&port=5432&user=gon".to_owned()),
            cluster: vec!["https://10.0.0.1:2379".to_owned()],
            control: vec!["10.0.0.1".to_owned()],
            authority: Some("/var/lib/gon/instance-manager/tls".to_owned()),
            node: Some("10.0.0.1".parse().unwrap()),
            labels: vec![("rack".to_owned(), "7".to_owned())],
            public_pool: Some("198.51.100.0/24".parse().unwrap()),
            external: Some(External::OnLink("ens3".to_owned())),
            mtu: Some(1442),
        };
        let config = read(&render(&site).unwrap());
        assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
        assert_eq!(config.cluster.endpoints, ["https://10.0.0.1:2379"]);
        assert_eq!(config.control.servers, ["10.0.0.1"]);
        assert_eq!(config.node.name.as_deref(), Some("control"));
        assert_eq!(config.node.labels["rack"], "7");
        assert_eq!(config.network.mtu, 1442);
        assert_eq!(config.network.external, External::OnLink("ens3".to_owned()));
        assert_eq!(config.roles.instance_manager.to_string(), "0.0.0.0:8082");
        assert_eq!(config.roles.storage_agent.to_string(), "0.0.0.0:9093");
    }

    #[test]
    fn a_controller_listens_as_no_agent_and_a_worker_as_no_controller() {
        let site =
            Site { name: "worker-1".to_owned(), node: Some("10.0.0.2".parse().unwrap()), ..Site::default() };
        let text = render(&site).unwrap();
        assert!(!text.contains("network_controller") && text.contains("hypervisor_agent"));
        assert!(!text.contains("[database]") && !text.contains("\nlisten"));
        read(&text);
    }

    #[test]
    fn nothing_becomes_syntax() {
        let site = Site { name: "x\"\n[tls]\ndir = \"/".to_owned(), ..Site::default() };
        assert!(render(&site).is_err());
    }
}
