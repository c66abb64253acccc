//! Writer of the `newc` cpio format, which the kernel unpacks as its initramfs.
//!
//! Same entries in, same bytes out: numbers, times and owners do not come from any file system, and no privilege is
//! needed for device nodes.

/// An archive under construction. Directories have to be added before what is in them.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    /// A directory; `path` without a slash in front, here and below.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.entry(path, DIRECTORY | mode, (0, 0), &[]);
    }
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entry(path, FILE | mode, (0, 0), contents);
    }
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes());
    }
    pub fn character_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE | mode, (major, minor), &[]);
    }
    /// The whole archive, in whole pages.
    ///
    /// QEMU puts an initramfs at the very top of a microvm's memory, into a last page that it does not fill, where
    /// firmware built from SeaBIOS (QEMU 10 of Debian's backports, not 7.2) has put the ACPI tables before: the guest
    /// then waits for ever for an interrupt that nobody told it of. A whole number of pages leaves that page alone.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(4096), 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.inode += 1;
        let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        // Length and name length are of the format's own making: files of 4 GiB do not occur here.
        let (size, name_size) = (contents.len() as u32, path.len() as u32 + 1);
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    /// Header and contents are aligned to four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.directory("d", 0o755);
        archive.file("d/f", 0o644, b"hello");
        archive.symlink("d/l", "f");
        archive.character_device("c", 0o600, 5, 1);
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4096, 0);
        // Walk it as the kernel does.
        let field = |at: usize, n: usize| {
            let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
            u32::from_str_radix(text, 16).unwrap() as usize
        };
        let (mut at, mut seen) = (0, Vec::<(String, usize, Vec<u8>, usize)>::new());
        while seen.last().is_none_or(|(name, ..)| name != "TRAILER!!!") {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (size, name_size) = (field(at, 6), field(at, 11));
            let name = std::str::from_utf8(&bytes[at + 110..at + 109 + name_size]).unwrap();
            let data = (at + 110 + name_size).next_multiple_of(4);
            seen.push((name.to_owned(), field(at, 1), bytes[data..data + size].to_vec(), field(at, 10)));
            at = (data + size).next_multiple_of(4);
        }
        assert!(bytes[at..].iter().all(|b| *b == 0));
        let expected = [
            ("d", 0o040_755, &b""[..], 0),
            ("d/f", 0o100_644, b"hello", 0),
            ("d/l", 0o120_777, b"f", 0),
            ("c", 0o020_600, b"", 1),
            ("TRAILER!!!", 0, b"", 0),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(n, m, d, minor)| (n.to_owned(), m, d.to_vec(), minor)).collect();
        assert_eq!(seen, expected);
    }
}
