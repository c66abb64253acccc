//! The last accepted document of each kind, on disk: what a node works from when nobody answers.
//!
//! Assumes one writer per directory (the role that owns it). Promises that what [`Ledger::accept`] returned survives
//! a power loss, that a document older than the best one seen is refused for ever (rule R5), that another node's or
//! another format's is refused, and that a document which would remove most of what runs here is refused unless it
//! says that this is meant (rule R11).
//!
//! Two files, `KIND.a` and `KIND.b`, written in turn over what they held: the newest whole one counts, so a write that
//! a power loss tears leaves the document before it in force, and taking a document costs one sync of the disk (a file
//! written beside and renamed costs two, a third of the way from an accepted launch to a node: `docs/perf/delivery.md`).
//! A file: one line `gon-ledger 2 KIND LENGTH SHA-256`, LENGTH bytes of JSON, then what an earlier, longer one left.

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
/// Files grow by this much: what lies within a file's size is synced without its metadata.
const GROWTH: usize = 64 << 10;

/// A node document that can be kept.
pub trait Document: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync + 'static {
    /// Its kind, which is also its files' name.
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
    slots: [PathBuf; 2],
    /// Which slot is written next: never the one that holds `current`.
    next: usize,
    node: NodeId,
    current: Option<D>,
}

/// What one of the two files holds.
enum Slot<D> {
    /// Nothing was ever written there.
    Empty,
    /// A document, as it was written.
    Whole(D),
    /// Something else: half of a document if power was lost over it.
    Torn,
}

impl<D: Document> Ledger<D> {
    /// Opens the ledger in `dir` (made if missing, mode 0700) and reads what it holds. If neither file is whole and one
    /// was, that is an error: somebody has to decide, since going on without would forget the fence.
    pub fn open(dir: &Path, node: NodeId) -> Result<Self, LedgerError> {
        use std::os::unix::fs::DirBuilderExt;
        let slots = ["a", "b"].map(|slot| dir.join(format!("{}.{slot}", D::KIND)));
        let failed = |source| LedgerError::Io { path: dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        if !slots.iter().all(|slot| slot.exists()) {
            slots.iter().try_for_each(|slot| writable(slot).map(drop)).map_err(failed)?;
            std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        }
        let (current, next) = match (Self::read(&slots[0])?, Self::read(&slots[1])?) {
            (Slot::Whole(a), Slot::Whole(b)) if a.version() < b.version() => (Some(b), 0),
            (Slot::Whole(a), Slot::Whole(_) | Slot::Empty) => (Some(a), 1),
            (Slot::Whole(a), Slot::Torn) => {
                warn_torn(&slots[1], a.version());
                (Some(a), 1)
            }
            (Slot::Torn, Slot::Whole(b)) => {
                warn_torn(&slots[0], b.version());
                (Some(b), 0)
            }
            // The first document goes to both, to this one first: it was never accepted.
            (Slot::Torn | Slot::Empty, Slot::Empty) => (None, 0),
            (Slot::Empty, Slot::Whole(b)) => (Some(b), 0),
            (Slot::Torn | Slot::Empty, Slot::Torn) => {
                let [_, path] = slots;
                return Err(LedgerError::Damaged { path, what: "nor is the other one whole".to_owned() });
            }
        };
        if let Some(document) = &current {
            check_identity(document, node)?;
        }
        Ok(Self { slots, next, node, current })
    }

    fn read(path: &Path) -> Result<Slot<D>, LedgerError> {
        let failed = |source| LedgerError::Io { path: path.to_owned(), source };
        let damaged = |what: String| LedgerError::Damaged { path: path.to_owned(), what };
        if std::fs::metadata(path).map_err(failed)?.len() > SIZE_LIMIT {
            return Err(damaged("it is too large".to_owned()));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        if bytes.is_empty() {
            return Ok(Slot::Empty);
        }
        let Some(body) = body_of::<D>(&bytes) else { return Ok(Slot::Torn) };
        serde_json::from_slice(body).map(Slot::Whole).map_err(|error| damaged(error.to_string()))
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
            let first = self.current.is_none();
            self.write(&document)?;
            if first {
                // From here on a torn file always has a whole one beside it.
                self.write(&document)?;
            }
            self.current = None;
        }
        Ok(self.current.get_or_insert(document))
    }

    /// Writes the slot whose turn it is; the turn passes on only when that is done.
    fn write(&mut self, document: &D) -> Result<(), LedgerError> {
        let path = &self.slots[self.next];
        let failed = |source| LedgerError::Io { path: path.clone(), source };
        let body = serde_json::to_vec(document).map_err(|error| failed(error.into()))?;
        let mut bytes = header_of::<D>(&body).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        let mut write = || {
            let mut file = writable(path)?;
            if (bytes.len() as u64) > file.metadata()?.len() {
                bytes.resize(bytes.len().next_multiple_of(GROWTH), 0);
            }
            file.write_all(&bytes)?;
            file.sync_data()
        };
        write().map_err(failed)?;
        self.next = 1 - self.next;
        Ok(())
    }
}

/// A slot's file, made if missing, what it holds left alone.
fn writable(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)
}

fn warn_torn(path: &Path, version: DocumentVersion) {
    tracing::warn!(path = %path.display(), %version,
        "a document was not written to its end, as when power is lost; the one before is in force");
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
    let mut header = format!("gon-ledger 2 {} {} ", D::KIND, body.len());
    for byte in digest {
        let _ = write!(header, "{byte:02x}");
    }
    header
}

/// The document's JSON in a slot, if the slot is whole.
fn body_of<D: Document>(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let header = std::str::from_utf8(&bytes[..end]).ok()?;
    let length: usize = header.split(' ').nth(3)?.parse().ok()?;
    let body = bytes[end + 1..].get(..length)?;
    (header == header_of::<D>(body)).then_some(body)
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
