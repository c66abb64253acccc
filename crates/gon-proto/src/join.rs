//! How a server becomes part of the site, and keeps being one: keys stay where they are made, requests for certificates
//! go to the instance manager, certificates come back.

use std::collections::BTreeMap;
use std::fmt;

use gon_types::Role;
use serde::{Deserialize, Serialize};

/// From a new server, which has a join token and no certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// The secret of the token.
    pub secret: String,
    /// The name the server wants; unique in the site.
    pub name: String,
    /// A request for a certificate (PKCS #10, PEM) for each role the server is to have.
    pub requests: BTreeMap<Role, String>,
}

/// Without the secret.
impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("format", &self.format)
            .field("name", &self.name)
            .field("roles", &self.requests.keys())
            .finish_non_exhaustive()
    }
}

/// What a new server needs to know. A worker gets no password: it never talks to the bus or to PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinAnswer {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// The server's name.
    pub name: String,
    /// The authorities to believe, PEM; the first is the one that signs.
    pub ca_pem: String,
    /// For each role the certificate, PEM, with the authority that signed it.
    pub certificates: BTreeMap<Role, String>,
    /// What else the site's servers have in common.
    pub site: SiteAnswer,
}

/// What the servers of a site have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteAnswer {
    /// Hosts of the control plane, where agents find the controllers.
    pub control_servers: Vec<String>,
    /// Where etcd answers; the same certificates are shown there. Empty: there is none.
    pub cluster_endpoints: Vec<String>,
    /// Public addresses of the site, if its operator has said which: a node answers for those of its guests.
    #[serde(default)]
    pub public_pool: Option<ipnet::Ipv4Net>,
}

/// From the holder of a certificate that is to be replaced: role and name are those of the certificate shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// The request for the next certificate (PKCS #10, PEM).
    pub request: String,
}

/// The next certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewAnswer {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// The authorities to believe, PEM; the first is the one that signs.
    pub ca_pem: String,
    /// The certificate, PEM, with the authority that signed it.
    pub certificate: String,
}

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthoritiesAnswer {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// The authorities to believe, PEM; the first is the one that signs.
    pub ca_pem: String,
}
