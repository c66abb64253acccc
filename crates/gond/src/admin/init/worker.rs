//! A server that has joined becomes a node: configuration, Open vSwitch, agents.

use std::net::{IpAddr, UdpSocket};

use anyhow::Context;
use gon_agent::join::Joined;
use gon_driver::run::{Cmd, run};
use ipnet::Ipv4Net;

use super::config::{self, Site};
use super::units;
use crate::admin::steps::{Done, step};
use crate::config::External;
use crate::terminal;

/// What the operator says of a node.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Its availability zone.
    pub zone: Option<String>,
    /// The address by which other nodes reach it; if not given, the one from which it reaches the controllers.
    pub address: Option<IpAddr>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// MTU offered to guests; if not given, what the network carries less the tunnel's headers.
    pub mtu: Option<u16>,
    /// Public addresses of the site; if not given, what the site says.
    pub public_pool: Option<Ipv4Net>,
    /// How the world reaches them; if not given, [`external`] says.
    pub external: Option<String>,
}

/// How the world reaches the public addresses of a node's guests: as the operator says it, where the device of `onlink`
/// may be left out. Nothing was said: a site with public addresses of its own has them on the link between its servers;
/// without, they are this server's alone.
pub async fn external(
    wish: Option<&str>,
    pool: Option<Ipv4Net>,
    address: IpAddr,
) -> anyhow::Result<Option<External>> {
    let text = match (wish, pool) {
        (None, None) => return Ok(None),
        (None, Some(_)) => "onlink",
        (Some(text), _) => text,
    };
    let text = if text == "onlink" {
        let device = holder(address).await.map(|device| device.name);
        let device = device.with_context(|| {
            format!("no device has the address {address}: say which link (--external onlink:DEVICE)")
        })?;
        format!("onlink:{device}")
    } else {
        text.to_owned()
    };
    text.parse().map(Some).map_err(|error| anyhow::anyhow!("--external: {error}"))
}

/// Makes a server that has joined a node of its site. Can be repeated.
pub async fn set_up(joined: &Joined, wishes: &Wishes) -> anyhow::Result<()> {
    let address = match wishes.address {
        Some(address) => Some(address),
        None => joined.site.control_servers.iter().find_map(|server| local_address(server)),
    };
    let address =
        address.context("no address by which other nodes could reach this one: say which (--address)")?;
    let public_pool = wishes.public_pool.or(joined.site.public_pool);
    let site = Site {
        name: joined.name.clone(),
        zone: wishes.zone.clone(),
        control: joined.site.control_servers.clone(),
        cluster: joined.site.cluster_endpoints.clone(),
        node: Some(address),
        labels: wishes.labels.clone(),
        public_pool,
        external: external(wishes.external.as_deref(), public_pool, address).await?,
        mtu: wishes.mtu.or(guest_mtu(address).await),
        ..Site::default()
    };
    step("configuration", async { config::write(&site) }).await?;
    prepare_node().await?;
    step("agents", async {
        units::reload().await?;
        units::restart_all(&units::WORKER).await?;
        Ok(Done::Now)
    })
    .await?;
    terminal::line(&format!(
        "\n'{}' is a node now; the console shows it among the nodes within seconds.",
        joined.name
    ));
    if std::fs::read_dir("/var/lib/gon/images").is_ok_and(|mut d| d.next().is_none())
        || !std::path::Path::new("/var/lib/gon/images").exists()
    {
        terminal::line("It has no images yet: install gon-images_*.deb, or run 'gond image build all'.");
    }
    Ok(())
}

/// What a node needs of the system: kernel modules and settings, Open vSwitch.
pub async fn prepare_node() -> anyhow::Result<()> {
    step("kernel modules and settings", async {
        // The package's files say which; what this kernel lacks, the doctor says.
        for command in [
            Cmd::new("/usr/lib/systemd/systemd-modules-load").arg("/usr/lib/modules-load.d/gon.conf"),
            Cmd::new("/lib/systemd/systemd-sysctl").arg("/usr/lib/sysctl.d/60-gon.conf"),
        ] {
            if let Err(error) = run(command).await {
                tracing::warn!(error = %error, "not all modules or settings are there; see 'gond doctor'");
            }
        }
        Ok(Done::Now)
    })
    .await?;
    step("Open vSwitch", async {
        units::start("openvswitch-switch.service").await?;
        Ok(Done::Now)
    })
    .await
}

/// Our address toward a host: which one the kernel would send from. Nothing is sent.
#[must_use]
pub fn local_address(host: &str) -> Option<IpAddr> {
    use std::net::ToSocketAddrs as _;
    // Port 9 discards, and no packet gets that far.
    let to = (host, 9).to_socket_addrs().ok()?.find(std::net::SocketAddr::is_ipv4)?;
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(to).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// The device that has an address.
async fn holder(address: IpAddr) -> Option<gon_driver::netlink::Link> {
    let IpAddr::V4(address) = address else { return None };
    let netlink = gon_driver::netlink::Netlink::open().ok()?;
    netlink.holder(address).await.ok().flatten()
}

/// The MTU that guests can have if the device with this address carries the tunnels.
pub async fn guest_mtu(address: IpAddr) -> Option<u16> {
    let device = holder(address).await?;
    let mtu = device.mtu.min(9000).checked_sub(gon_driver::doctor::verdict::OVERLAY)?;
    u16::try_from(mtu).ok().filter(|mtu| *mtu >= 576)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_no_address_for_others() {
        assert_eq!(local_address("127.0.0.1"), None);
        assert_eq!(local_address("no-such-server.invalid"), None);
    }

    #[tokio::test]
    async fn a_site_with_addresses_of_its_own_has_them_on_its_link() {
        let pool: Option<Ipv4Net> = Some("198.51.100.0/24".parse().unwrap());
        let (lo, nobodys) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([198, 18, 0, 1]));
        assert_eq!(external(None, None, lo).await.unwrap(), None);
        assert_eq!(external(None, pool, lo).await.unwrap(), Some(External::OnLink("lo".to_owned())));
        assert_eq!(external(Some("routed"), pool, nobodys).await.unwrap(), Some(External::Routed));
        assert!(external(None, pool, nobodys).await.is_err(), "no device has that address");
        assert!(external(Some("onlink:../x"), pool, lo).await.is_err());
    }
}
