//! What is known of the images' digests, so that nothing is read twice without need.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Integrity;

const FILE: &str = "verified.json";

/// Which files an image consists of. Another file, or another content written through the file system, is another
/// stamp; what a failing disk or somebody below the file system does is not seen here, but when it is read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(BTreeMap<String, (u64, u64, i64, i64)>);

impl Stamp {
    /// Of the image in `dir`.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(name, (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        }
        Ok(Self(files))
    }
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|file| file.1).sum()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    /// When it was read, seconds since 1970.
    at: u64,
    damage: Option<String>,
}

/// What is known, by image.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known(BTreeMap<String, Entry>);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Known {
    /// As it was written down; nothing if that cannot be read: then all is read again.
    pub fn load(dir: &Path) -> Self {
        let text = std::fs::read(dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
    /// Writes it down.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let beside = dir.join(".verified.new");
        std::fs::write(&beside, serde_json::to_vec(self)?)?;
        std::fs::rename(&beside, dir.join(FILE))
    }
    /// What the digests of these very files said.
    pub fn of(&self, image: &str, stamp: &Stamp) -> Integrity {
        match self.0.get(image) {
            Some(Entry { stamp: read, damage, .. }) if read == stamp => match damage {
                None => Integrity::Verified,
                Some(reason) => Integrity::Damaged(reason.clone()),
            },
            _ => Integrity::Unchecked,
        }
    }
    /// Whether it was read longer ago than that.
    pub fn is_old(&self, image: &str, age: Duration) -> bool {
        self.0.get(image).is_none_or(|entry| now().abs_diff(entry.at) > age.as_secs())
    }
    /// It was read now.
    pub fn learn(&mut self, image: &str, stamp: Stamp, damage: Option<String>) {
        self.0.insert(image.to_owned(), Entry { stamp, at: now(), damage });
    }
    /// Forgets images that are gone.
    pub fn keep_only(&mut self, images: &[&str]) {
        self.0.retain(|name, _| images.contains(&name.as_str()));
    }
}
