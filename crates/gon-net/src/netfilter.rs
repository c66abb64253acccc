//! The host's own guard: the nftables table `inet gon`, as text for one `nft -f -` transaction.

use ipnet::Ipv4Net;

/// Name of a network device, safe to write into a ruleset: 1 to 15 of `[A-Za-z0-9._-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device(String);

impl Device {
    /// A device name, or `None` if it is not one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let ok = (1..=15).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        ok.then(|| Self(name.to_owned()))
    }
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the guard must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostGuard {
    /// The device toward local services, [`crate::service::META_DEVICE`].
    pub meta: Device,
    /// The device toward public addresses, [`crate::service::EXT_DEVICE`].
    pub ext: Device,
    /// The pool of public addresses.
    pub pool: Ipv4Net,
    /// Private networks beyond the host that guests may reach all the same (default: none).
    pub reachable: Vec<Ipv4Net>,
    /// Whether guests' ways out of the host are hidden behind its own address (standalone: yes).
    pub masquerade: bool,
}

/// The transaction that puts the guard in place, whatever was there.
#[must_use]
pub fn render(_guard: &HostGuard) -> String {
    String::new()
}

/// The transaction that removes it, whether it is there or not.
#[must_use]
pub fn render_removal() -> String {
    "add table inet gon\ndelete table inet gon\n".to_owned()
}
