//! Who speaks: the role and the name that a certificate gives its holder.
//!
//! Promises that an [`Identity`] read from text is exactly `gon://ROLE/NAME`, of a role we know and a name as the schema
//! has it: nothing that looks alike is one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! roles {
    ($($(#[$doc:meta])* $role:ident = $text:literal,)*) => {
        /// What a process is in the site. Its text is the same everywhere: in certificates, files, tables and users of
        /// the servers we use.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Role {
            $($(#[$doc])* #[serde(rename = $text)] $role,)*
        }

        impl Role {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$role,)*];

            /// Its text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$role => $text,)*
                }
            }
        }
    };
}

roles! {
    /// The REST API.
    ApiServer = "api-server",
    /// The controller of networks.
    NetworkController = "network-controller",
    /// The controller of instances, which also admits nodes.
    InstanceManager = "instance-manager",
    /// A node's agent for virtual machines.
    HypervisorAgent = "hypervisor-agent",
    /// A node's agent for its network.
    NetworkAgent = "network-agent",
    /// A node's agent for containers.
    ContainerAgent = "container-agent",
    /// A node's agent for volumes and images.
    StorageAgent = "storage-agent",
    /// The message bus (RabbitMQ).
    Bus = "bus",
    /// The store of leases (etcd).
    Cluster = "cluster",
    /// The database (PostgreSQL).
    Database = "database",
    /// A person with a shell on a server of the control plane.
    Operator = "operator",
}

impl Role {
    /// What a worker is given when it joins.
    pub const WORKER: &[Self] =
        &[Self::HypervisorAgent, Self::NetworkAgent, Self::ContainerAgent, Self::StorageAgent];
    /// What a server of the control plane is.
    pub const CONTROL: &[Self] = &[Self::ApiServer, Self::NetworkController, Self::InstanceManager];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for Role {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL.iter().copied().find(|role| role.as_str() == text).ok_or(IdentityError::Role)
    }
}

/// Why a text is not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It does not begin with `gon://`, or has no name.
    #[error("an identity reads gon://ROLE/NAME")]
    Form,
    /// No role of ours.
    #[error("there is no such role")]
    Role,
    /// Not a server's name.
    #[error("a server's name is 1 to 50 of a-z, 0-9, '.' and '-', beginning with a letter or digit")]
    Name,
}

/// Whether a text can name a server, as the schema's `nodes.name` has it.
#[must_use]
pub fn is_server_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=50).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|b| plain(b) || b == b'.' || b == b'-')
}

/// A role on a server: `gon://ROLE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    role: Role,
    name: String,
}

impl Identity {
    /// What every identity begins with.
    pub const SCHEME: &str = "gon://";

    /// The role `role` on the server `name`.
    pub fn new(role: Role, name: &str) -> Result<Self, IdentityError> {
        if is_server_name(name) { Ok(Self { role, name: name.to_owned() }) } else { Err(IdentityError::Name) }
    }
    /// Its role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }
    /// Its server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", Self::SCHEME, self.role, self.name)
    }
}
impl FromStr for Identity {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let rest = text.strip_prefix(Self::SCHEME).ok_or(IdentityError::Form)?;
        let (role, name) = rest.split_once('/').ok_or(IdentityError::Form)?;
        Self::new(role.parse()?, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        for role in Role::ALL {
            let identity = Identity::new(*role, "worker-1.rack2").unwrap();
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
    }

    #[test]
    fn nothing_that_looks_alike_is_an_identity() {
        for bad in [
            "",
            "gon://",
            "gon:/network-agent/w1",
            "GON://network-agent/w1",
            "gon://network-agent",
            "gon://network-agent/",
            "gon://Network-Agent/w1",
            "gon://network-agent /w1",
            "gon://root/w1",
            "gon://network-agent/w1/",
            "gon://network-agent/w1/x",
            "gon://network-agent/W1",
            "gon://network-agent/w1%00",
            "gon://network-agent/w1\0",
            "gon://network-agent/../w1",
            "gon://network-agent/w1?x",
            "gon://network-agent/w1#x",
            "gon://user@network-agent/w1",
            "gon://network-agent:1/w1",
            "spiffe://gon/network-agent/w1",
            " gon://network-agent/w1",
            "gon://network-agent/w1\n",
            "gon://network-agent/ẃ1",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?}");
        }
        assert!(Identity::new(Role::NetworkAgent, &"a".repeat(51)).is_err());
    }
}
