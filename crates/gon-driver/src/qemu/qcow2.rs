//! Empty qcow2 overlays, written and checked by ourselves.
//!
//! Assumes that the base of an overlay is named on QEMU's command line, never in the file (rule R17: nothing is
//! probed, no header names another file). Promises that a file it made is a valid, empty qcow2 version 3 image, and
//! that [`check`] accepts only files of that shape: a header that names a backing file, an external data file,
//! encryption or features we did not write is refused before QEMU sees it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const MAGIC: &[u8; 4] = b"QFI\xfb";
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Guest bytes that one entry of the first-level table covers: a second-level table is one cluster of 8-byte entries.
const PER_L1_ENTRY: u64 = CLUSTER / 8 * CLUSTER;
const HEADER_LENGTH: u32 = 104;
/// 64 TiB: far above what is offered, far below where the arithmetic ends.
const SIZE_LIMIT: u64 = 64 << 40;
/// Incompatible features that QEMU itself sets on an image it writes to: the dirty and the corrupt bit. A corrupt one
/// QEMU refuses to write to by itself.
const KNOWN_INCOMPATIBLE: u64 = 0b11;

/// Why a file is not an overlay of ours.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// It could not be read or written.
    #[error("the disk image")]
    Io(#[from] io::Error),
    /// It is not what we write.
    #[error("not a disk image of ours: {0}")]
    Foreign(&'static str),
    /// A size we do not make.
    #[error("a disk of {0} bytes")]
    Size(u64),
}

/// Writes an empty overlay of `size` bytes at `path`, which must not exist, and syncs it. Mode 0600.
pub fn create(path: &Path, size: u64) -> Result<(), Qcow2Error> {
    if size == 0 || size > SIZE_LIMIT || !size.is_multiple_of(512) {
        return Err(Qcow2Error::Size(size));
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&empty(size))?;
    file.sync_all()?;
    Ok(())
}

/// The bytes of an empty image: header, reference count table, its one block, first-level table; a cluster or more
/// each.
fn empty(size: u64) -> Vec<u8> {
    let l1_entries = size.div_ceil(PER_L1_ENTRY);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let clusters = 3 + l1_clusters;
    let mut image = vec![0u8; (clusters * CLUSTER) as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    put(0, MAGIC);
    put(4, &3u32.to_be_bytes());
    // 8: backing file offset and length stay zero: there is none.
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &size.to_be_bytes());
    // 32: no encryption.
    put(36, &(l1_entries as u32).to_be_bytes());
    put(40, &(3 * CLUSTER).to_be_bytes());
    put(48, &CLUSTER.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    // 60: no snapshots; 72, 80, 88: no features.
    // Reference counts have 2^4 bits.
    put(96, &4u32.to_be_bytes());
    put(100, &HEADER_LENGTH.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER).to_be_bytes());
    for cluster in 0..clusters {
        put(2 * CLUSTER + cluster * 2, &1u16.to_be_bytes());
    }
    image
}

/// Its virtual size, if the file is an overlay of the shape we make.
pub fn check(file: &mut File) -> Result<u64, Qcow2Error> {
    let mut header = [0u8; HEADER_LENGTH as usize];
    file.read_exact(&mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Qcow2Error::Foreign("it is shorter than a header"),
        _ => Qcow2Error::Io(error),
    })?;
    let u32_at = |at: usize| header[at..at + 4].iter().fold(0u32, |n, b| n << 8 | u32::from(*b));
    let u64_at = |at: usize| header[at..at + 8].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let size = u64_at(24);
    let bad = [
        (header[..4] != *MAGIC, "no qcow2 magic"),
        (u32_at(4) != 3, "its version is not 3"),
        (u64_at(8) != 0 || u32_at(16) != 0, "it names a backing file"),
        (u32_at(20) != CLUSTER_BITS, "its cluster size is another"),
        (size == 0 || size > SIZE_LIMIT, "its size"),
        (u32_at(32) != 0, "it is encrypted"),
        (u64::from(u32_at(36)) < size.div_ceil(PER_L1_ENTRY), "its first-level table is too short"),
        (u32_at(60) != 0, "it has snapshots"),
        (u64_at(72) & !KNOWN_INCOMPATIBLE != 0, "it has incompatible features (an external data file?)"),
    ];
    match bad.into_iter().find(|(is, _)| *is) {
        Some((_, what)) => Err(Qcow2Error::Foreign(what)),
        None => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    #[test]
    fn what_is_made_is_accepted_and_its_size_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        for (i, size) in [512, 1 << 20, 8 << 30, (8 << 30) + 512, 2 << 40].into_iter().enumerate() {
            let path = dir.path().join(i.to_string());
            create(&path, size).unwrap();
            assert_eq!(check(&mut File::open(&path).unwrap()).unwrap(), size);
            assert!(create(&path, size).is_err(), "an existing file is never overwritten");
        }
        for size in [0, 511, 65 << 40] {
            assert!(matches!(create(&dir.path().join("x"), size), Err(Qcow2Error::Size(_))));
        }
    }

    #[test]
    fn hostile_headers_are_refused() {
        let cases: [(usize, &[u8], &str); 8] = [
            (0, b"KDMV", "magic"),
            (4, &[0, 0, 0, 2], "version"),
            (8, &[0, 0, 0, 0, 0, 0, 2, 0], "backing"),
            (16, &[0, 0, 0, 9], "backing"),
            (20, &[0, 0, 0, 9], "cluster"),
            (32, &[0, 0, 0, 2], "encrypted"),
            (60, &[0, 0, 0, 1], "snapshots"),
            (79, &[4], "incompatible"),
        ];
        for (at, bytes, word) in cases {
            let mut image = empty(1 << 30);
            image[at..at + bytes.len()].copy_from_slice(bytes);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&image).unwrap();
            file.rewind().unwrap();
            let error = check(&mut file).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        let mut short = tempfile::tempfile().unwrap();
        assert!(check(&mut short).is_err());
    }
}
