//! The last accepted document of each kind, on disk: what a node works from when nobody answers.
//!
//! Assumes one writer per directory (the role that owns it). Promises that what [`Ledger::accept`] returned survives
//! a power loss, that a document older than the best one seen is refused for ever (rule R5), that another node's or
//! another format's is refused, and that a document which would remove most of what runs here is refused unless it
//! says that this is meant (rule R11).
//!
//! File: one line `gon-ledger 1 KIND SHA-256-of-the-rest`, then the document as JSON. Written beside, synced, renamed,
//! directory synced.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use gon_proto::{NodeCompute, NodeNetwork, PowerSpec};
use gon_types::DocumentVersion;
use gon_types::id::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Up to this many removals need no [`Document::mass_change_ok`].
const FREE_REMOVALS: usize = 3;
/// Beyond [`FREE_REMOVALS`], this share of what is here may be removed, percent.
const FREE_REMOVAL_PERCENT: usize = 20;
/// A document larger than this is not ours (R4 bounds it to 2 MB; ten times that is certainly wrong).
const SIZE_LIMIT: u64 = 32 << 20;

/// A node document that can be kept.
pub trait Document: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync + 'static {
    /// Its kind, which is also the file's name.
    const KIND: &'static str;
    /// [`gon_proto::FORMAT`] of its writer.
    fn format(&self) -> u32;
    /// Which node it is for.
    fn node(&self) -> NodeId;
    /// Its place in the order.
    fn version(&self) -> DocumentVersion;
    /// Whether removing most of the node is meant.
    fn mass_change_ok(&self) -> bool;
    /// How many things this document has, and how many of them `next` no longer has.
    fn removals(&self, next: &Self) -> (usize, usize);
}

impl Document for NodeNetwork {
    const KIND: &'static str = "network";
    fn format(&self) -> u32 {
        self.format
    }
    fn node(&self) -> NodeId {
        self.node
    }
    fn version(&self) -> DocumentVersion {
        self.version
    }
    fn mass_change_ok(&self) -> bool {
        self.mass_change_ok
    }
    fn removals(&self, next: &Self) -> (usize, usize) {
        let kept: std::collections::HashSet<_> = next.ports.iter().map(|p| p.id).collect();
        (self.ports.len(), self.ports.iter().filter(|p| !kept.contains(&p.id)).count())
    }
}

impl Document for NodeCompute {
    const KIND: &'static str = "compute";
    fn format(&self) -> u32 {
        self.format
    }
    fn node(&self) -> NodeId {
        self.node
    }
    fn version(&self) -> DocumentVersion {
        self.version
    }
    fn mass_change_ok(&self) -> bool {
        self.mass_change_ok
    }
    /// An instance counts as removed if it is missing or terminated while it was neither: what already was terminated
    /// is on its way out with the user's consent.
    fn removals(&self, next: &Self) -> (usize, usize) {
        let kept: std::collections::HashSet<_> =
            next.instances.iter().filter(|i| i.power != PowerSpec::Terminated).map(|i| i.id).collect();
        let here = self.instances.iter().filter(|i| i.power != PowerSpec::Terminated);
        here.fold((0, 0), |(all, gone), i| (all + 1, gone + usize::from(!kept.contains(&i.id))))
    }
}

/// Why a document was not taken, or the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Made for another node.
    #[error("the document is for node {theirs}, this is {ours}")]
    OtherNode {
        /// Who we are.
        ours: NodeId,
        /// Whom it is for.
        theirs: NodeId,
    },
    /// Its shape is one this agent does not know.
    #[error("the document has format {0}, this agent knows {known}", known = gon_proto::FORMAT)]
    Format(u32),
    /// Older than what was already accepted, or the same version with another content.
    #[error("document {offered} does not follow {accepted}, which was accepted before")]
    Stale {
        /// What was offered.
        offered: DocumentVersion,
        /// What is held.
        accepted: DocumentVersion,
    },
    /// It would remove too much at once (rule R11).
    #[error("document {offered} would remove {removed} of {of} and does not say that this is meant")]
    MassChange {
        /// What was offered.
        offered: DocumentVersion,
        /// How many it would remove.
        removed: usize,
        /// Of how many.
        of: usize,
    },
    /// The file is there but is not what was written.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In which way.
        what: String,
    },
    /// The disk failed us.
    #[error("the ledger {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The ledger of one kind of document.
#[derive(Debug)]
pub struct Ledger<D: Document> {
    path: PathBuf,
    node: NodeId,
    current: Option<D>,
}

impl<D: Document> Ledger<D> {
    /// Opens the ledger in `dir` (made if missing, mode 0700) and reads what it holds. A damaged file is an error
    /// that names it: somebody has to decide, since going on without would forget the fence.
    pub fn open(dir: &Path, node: NodeId) -> Result<Self, LedgerError> {
        use std::os::unix::fs::DirBuilderExt;
        let path = dir.join(format!("{}.json", D::KIND));
        let io_error = |source| LedgerError::Io { path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error)?;
        let current = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error(error)),
            Ok(meta) if meta.len() > SIZE_LIMIT => {
                return Err(LedgerError::Damaged { path, what: "it is too large".to_owned() });
            }
            Ok(_) => Some(Self::read(&path)?),
        };
        if let Some(document) = &current {
            check_identity(document, node)?;
        }
        Ok(Self { path, node, current })
    }

    fn read(path: &Path) -> Result<D, LedgerError> {
        let damaged = |what: &str| LedgerError::Damaged { path: path.to_owned(), what: what.to_owned() };
        let bytes =
            std::fs::read(path).map_err(|source| LedgerError::Io { path: path.to_owned(), source })?;
        let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("no header"))?;
        let (header, body) = (&bytes[..end], &bytes[end + 1..]);
        if header != header_of::<D>(body).as_bytes() {
            return Err(damaged("its checksum or kind is not its own"));
        }
        serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))
    }

    /// The document in force, if there ever was one.
    #[must_use]
    pub fn current(&self) -> Option<&D> {
        self.current.as_ref()
    }

    /// The version in force; 0.0 before the first.
    #[must_use]
    pub fn version(&self) -> DocumentVersion {
        self.current.as_ref().map(D::version).unwrap_or_default()
    }

    /// Whether the document may be taken, without taking it. `Ok(false)`: it is the one already held.
    pub fn judge(&self, document: &D) -> Result<bool, LedgerError> {
        judge(self.node, self.current.as_ref(), document)
    }

    /// Takes the document: when this returns, it is on the disk to stay. Blocks for the disk; call it from
    /// [`tokio::task::spawn_blocking`] or [`tokio::task::block_in_place`] where others would wait. The same document
    /// again is taken without writing.
    pub fn accept(&mut self, document: D) -> Result<&D, LedgerError> {
        if self.judge(&document)? {
            self.write(&document)?;
            self.current = None;
        }
        Ok(self.current.get_or_insert(document))
    }

    fn write(&self, document: &D) -> Result<(), LedgerError> {
        let io_error = |source| LedgerError::Io { path: self.path.clone(), source };
        let body = serde_json::to_vec(document).map_err(|error| io_error(error.into()))?;
        let beside = self.path.with_extension("json.new");
        let write = || {
            use std::os::unix::fs::OpenOptionsExt;
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(header_of::<D>(&body).as_bytes())?;
            file.write_all(b"\n")?;
            file.write_all(&body)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)?;
            match self.path.parent() {
                Some(dir) => std::fs::File::open(dir)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(io_error)
    }
}

/// The rule of [`Ledger::judge`] by itself: whether `node`, which holds `current`, may take `document`. Pure.
pub fn judge<D: Document>(node: NodeId, current: Option<&D>, document: &D) -> Result<bool, LedgerError> {
    check_identity(document, node)?;
    let Some(current) = current else { return Ok(true) };
    let (offered, accepted) = (document.version(), current.version());
    if offered == accepted && document == current {
        return Ok(false);
    }
    if offered <= accepted {
        return Err(LedgerError::Stale { offered, accepted });
    }
    let (of, removed) = current.removals(document);
    let free = FREE_REMOVALS.max(of * FREE_REMOVAL_PERCENT / 100);
    if removed > free && !document.mass_change_ok() {
        return Err(LedgerError::MassChange { offered, removed, of });
    }
    Ok(true)
}

fn header_of<D: Document>(body: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(body);
    let mut header = format!("gon-ledger 1 {} ", D::KIND);
    for byte in digest {
        let _ = write!(header, "{byte:02x}");
    }
    header
}

fn check_identity<D: Document>(document: &D, ours: NodeId) -> Result<(), LedgerError> {
    if !gon_proto::is_spoken(document.format()) {
        return Err(LedgerError::Format(document.format()));
    }
    if document.node() != ours {
        return Err(LedgerError::OtherNode { ours, theirs: document.node() });
    }
    Ok(())
}
