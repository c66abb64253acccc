//! From the kernel as distributions pack it (`bzImage`) to the uncompressed ELF file that QEMU starts directly (PVH):
//! no firmware and no decompression in the guest, which under emulation is a third of the boot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ImageError, at, tool};
use crate::run::Cmd;

/// The formats in which Linux compresses itself: how the payload begins, the tool that unpacks it, and whether the
/// kernel's build appended the unpacked length (four bytes that the tool would stumble over).
const FORMATS: [(&[u8], &str, bool); 6] = [
    (&[0x02, 0x21, 0x4c, 0x18], "lz4", true),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", true),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0x00], "xz", true),
    (&[0x5d, 0x00, 0x00], "lzma", true),
    (b"BZh", "bzip2", true),
    // gzip carries the length itself.
    (&[0x1f, 0x8b, 0x08], "gzip", false),
];

fn contents(reason: &str) -> ImageError {
    ImageError::Contents(format!("the kernel {reason}"))
}

/// Where the compressed kernel is inside a `bzImage` (Linux's boot protocol, fields `setup_sects`, `payload_offset`
/// and `payload_length`, since version 2.08).
fn payload(image: &[u8]) -> Result<&[u8], ImageError> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or_else(|| contents("is cut off"))
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(contents("is not a bzImage"));
    }
    if word(0x206)? & 0xffff < 0x0208 {
        return Err(contents("is older than boot protocol 2.08"));
    }
    let setup_sectors = match image[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let (offset, length) = (word(0x248)? as usize, word(0x24c)? as usize);
    let start = (setup_sectors + 1) * 512 + offset;
    image.get(start..start.saturating_add(length)).ok_or_else(|| contents("is cut off"))
}

/// Whether an ELF file carries the note with the PVH entry point (owner "Xen", type 18), without which QEMU would
/// refuse it. A search for the note's header is enough: it is aligned and improbable elsewhere.
fn has_pvh_entry(elf: &[u8]) -> bool {
    const OWNER: &[u8] = b"\x12\0\0\0Xen\0";
    elf.starts_with(b"\x7fELF") && elf.windows(OWNER.len()).any(|window| window == OWNER)
}

/// Unpacks the kernel `vmlinuz` into `out`.
pub(super) async fn unpack(vmlinuz: &Path, out: &Path) -> Result<(), ImageError> {
    let image = std::fs::read(vmlinuz).map_err(at(vmlinuz))?;
    let packed = payload(&image)?;
    let known = FORMATS.into_iter().find(|(magic, ..)| packed.starts_with(magic));
    let (_, program, length_appended) = known.ok_or_else(|| contents("is compressed in an unknown way"))?;
    let packed = if length_appended { &packed[..packed.len().saturating_sub(4)] } else { packed };
    let input = PathBuf::from(format!("{}.packed", out.display()));
    std::fs::write(&input, packed).map_err(at(&input))?;
    // Through files: a kernel is larger than what the spawner keeps of a program's output.
    let output = PathBuf::from(format!("{}.packed.out", out.display()));
    let cmd = Cmd::new("sh")
        .args(["-c", "exec \"$1\" -dc <\"$2\" >\"$3\"", "sh", program])
        .args([&input, &output])
        .deadline(Duration::from_secs(60));
    tool("unpacking the kernel", cmd).await?;
    let elf = std::fs::read(&output).map_err(at(&output))?;
    if !has_pvh_entry(&elf) {
        return Err(contents("has no PVH entry"));
    }
    std::fs::remove_file(&input).map_err(at(&input))?;
    std::fs::rename(&output, out).map_err(at(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(&[0; 16]);
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_found_and_broken_headers_are_not_believed() {
        let image = bzimage(b"packed");
        assert_eq!(payload(&image).unwrap(), b"packed");
        for cut in [0, 0x200, 0x250, image.len() - 1] {
            assert!(payload(&image[..cut]).is_err(), "{cut}");
        }
        let mut huge = image.clone();
        huge[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(payload(&huge).is_err());
        let mut old = image;
        old[0x206] = 0x07;
        assert!(payload(&old).is_err());
    }

    #[tokio::test]
    async fn a_kernel_without_pvh_entry_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let gz = run_gzip(b"\x7fELF and more").await;
        let vmlinuz = dir.path().join("vmlinuz");
        std::fs::write(&vmlinuz, bzimage(&gz)).unwrap();
        let error = unpack(&vmlinuz, &dir.path().join("out")).await.unwrap_err();
        assert_eq!(error.to_string(), "unexpected package contents: the kernel has no PVH entry");
        let gz = run_gzip(b"\x7fELF..\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\0\0\0\0").await;
        std::fs::write(&vmlinuz, bzimage(&gz)).unwrap();
        unpack(&vmlinuz, &dir.path().join("out")).await.unwrap();
        assert!(dir.path().join("out").exists());
    }

    async fn run_gzip(bytes: &[u8]) -> Vec<u8> {
        crate::run::run(Cmd::new("gzip").arg("-c").stdin(bytes)).await.unwrap().stdout
    }
}
