//! What is where in the data directory.
//!
//! ```text
//! DATA_DIR/            0700
//!   gond.lock          held by the one gond that works here; says which process that is
//!   admin.json         the first administrator's generated password (0600)
//!   node.json          the name of this node
//!   token.key          signs access tokens (0600)
//!   run/               sockets of this machine's roles (shortened to a directory in /run if the path is too long)
//!   postgres/          the private PostgreSQL: data/, log, socket
//!   ovs.lock           held by whoever starts the private Open vSwitch
//!   ovs/               the private Open vSwitch: database, sockets, logs
//!   images/            the node's image store, one directory per image
//!   network/           the network agent's ledger
//!   compute/           the hypervisor agent's ledger, and one directory per guest
//!   storage/           what the storage agent knows of the images' digests
//!   facts/             what the agents of this node found out for each other
//!   tls/               certificates and keys of this machine's roles
//!   log/               what `make up` writes
//! ```

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The data directory.
#[derive(Debug, Clone)]
pub struct Layout(PathBuf);

impl Layout {
    /// Names only; nothing is made.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.to_owned())
    }
    /// The directory itself.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.0
    }
    /// The first administrator's generated password.
    #[must_use]
    pub fn admin_file(&self) -> PathBuf {
        self.0.join("admin.json")
    }
    /// Signs access tokens.
    #[must_use]
    pub fn token_key(&self) -> PathBuf {
        self.0.join("token.key")
    }
    /// The name of this node.
    #[must_use]
    pub fn node_file(&self) -> PathBuf {
        self.0.join("node.json")
    }
    /// The private PostgreSQL.
    #[must_use]
    pub fn postgres(&self) -> PathBuf {
        self.0.join("postgres")
    }
    /// The private Open vSwitch.
    #[must_use]
    pub fn ovs(&self) -> PathBuf {
        self.0.join("ovs")
    }
    /// The network agent's.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        self.0.join("network")
    }
    /// The hypervisor agent's.
    #[must_use]
    pub fn compute(&self) -> PathBuf {
        self.0.join("compute")
    }
    /// The storage agent's.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.0.join("storage")
    }
    /// Where the agents of this node leave what they found out for each other.
    #[must_use]
    pub fn facts(&self) -> PathBuf {
        self.0.join("facts")
    }
    /// Where the sockets are. A socket's path has room for 107 bytes; a longer one moves to a directory of its own.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        gon_driver::ovs::socket_dir(&self.0.join("run"), "network-controller.sock", "run")
    }
    /// The socket on which agents of this machine reach a controller: in one process both share one.
    #[must_use]
    pub fn controller_socket(&self, controller: &str) -> PathBuf {
        self.run().join(format!("{controller}.sock"))
    }
    /// Makes a directory of ours, mode 0700.
    pub fn make(dir: &Path) -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }
}
