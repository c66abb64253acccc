//! The recipe of `gon-linux`: Debian's cloud kernel and an initramfs of busybox, dropbear and a few scripts
//! (`images/gon-linux/`).
//!
//! The system lives in memory, so a guest of it starts in a second or two and forgets everything when it stops. What
//! the scripts promise is said in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use super::manifest::{Draft, INITRD, KERNEL};
use super::packages::{self, SUITE, Variant};
use super::{ImageError, Kind, Machine, Progress, Recipe, at, blocking, digest_of, kernel, modules, tool};
use crate::run::Cmd;

const PACKAGES: [&str; 3] = ["linux-image-cloud-amd64", "busybox-static", "dropbear-bin"];

/// `quiet`: the console is for what the image and its owner have to say; `loglevel=3` on top, for the kernel calls a
/// machine without PCI an error (init turns errors on again). `panic=1`: when init is gone there is nothing left to do
/// but start again. `cryptomgr.notests`: the kernel's self-tests of its ciphers are a sixth of an emulated boot
/// (`docs/perf/boot.md`).
const CMDLINE: &str = "console=ttyS0 quiet loglevel=3 panic=1 cryptomgr.notests";

/// The modules that guests get, with what they depend on: the way to the devices, network, disks, entropy, and the
/// power button. Init loads them by these names.
const MODULES: [&str; 7] =
    ["virtio_mmio", "virtio_pci", "virtio_net", "virtio_blk", "virtio_rng", "button", "evdev"];

/// Programs that are not busybox: where the package has them, and where the image does. All link dynamically.
const PROGRAMS: [(&str, &str); 2] =
    [("usr/sbin/dropbear", "sbin/dropbear"), ("usr/bin/dropbearkey", "bin/dropbearkey")];

/// The image's own files: path, mode, contents.
const FILES: [(&str, u32, &str); 15] = [
    ("init", 0o755, include_str!("../../../../images/gon-linux/init")),
    ("lib/gon/common.sh", 0o644, include_str!("../../../../images/gon-linux/common.sh")),
    ("lib/gon/dhcp", 0o755, include_str!("../../../../images/gon-linux/dhcp")),
    ("lib/gon/metadata", 0o755, include_str!("../../../../images/gon-linux/metadata")),
    ("lib/gon/user-data", 0o755, include_str!("../../../../images/gon-linux/user-data")),
    ("lib/gon/ready", 0o755, include_str!("../../../../images/gon-linux/ready")),
    ("lib/gon/power", 0o755, include_str!("../../../../images/gon-linux/power")),
    ("etc/inittab", 0o644, include_str!("../../../../images/gon-linux/inittab")),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
    // No password is valid; dropbear takes keys only, besides.
    ("etc/shadow", 0o600, "root:*:19000:0:99999:7:::\n"),
    ("etc/group", 0o644, "root:x:0:\ntty:x:5:\n"),
    ("etc/shells", 0o644, "/bin/sh\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n"),
    ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
    ("etc/profile", 0o644, "export PATH=/bin:/sbin\nexport PS1='\\u@\\h:\\w# '\n"),
];

/// Directories besides those that the files imply.
const DIRECTORIES: [(&str, u32); 20] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/acpi", 0o755),
    ("etc/acpi/PWRF", 0o755),
    ("etc/dropbear", 0o700),
    ("lib", 0o755),
    ("lib/gon", 0o755),
    ("lib/modules", 0o755),
    ("lib64", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/gon", 0o700),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
];

/// Names that lead elsewhere. The power button's file name is the event as busybox's acpid spells it.
const LINKS: [(&str, &str); 11] = [
    ("etc/acpi/PWRF/00000080", "/lib/gon/power"),
    ("sbin/halt", "/lib/gon/power"),
    ("sbin/init", "/bin/busybox"),
    ("sbin/poweroff", "/lib/gon/power"),
    ("sbin/reboot", "/lib/gon/power"),
    ("usr/bin", "/bin"),
    ("usr/lib", "/lib"),
    ("usr/sbin", "/sbin"),
    ("var/log", "/tmp"),
    ("var/run", "/run"),
    ("var/tmp", "/tmp"),
];

/// Everything that decides what the image is.
pub(super) fn digest() -> String {
    let mut parts = vec!["gon-linux 3", SUITE, CMDLINE];
    parts.extend(PACKAGES);
    parts.extend(MODULES);
    parts.extend(PROGRAMS.iter().flat_map(|(from, to)| [*from, *to]));
    parts.extend(FILES.iter().flat_map(|(path, _, contents)| [*path, *contents]));
    parts.extend(DIRECTORIES.iter().map(|(path, _)| *path));
    parts.extend(LINKS.iter().flat_map(|(path, target)| [*path, *target]));
    let modes: Vec<u32> = FILES.iter().map(|f| f.1).chain(DIRECTORIES.iter().map(|d| d.1)).collect();
    digest_of(&parts, &modes)
}

pub(super) async fn build(work: &Path, out: &Path, progress: Progress<'_>) -> Result<Draft, ImageError> {
    let say = |step: &str| progress(Recipe::GonLinux, step);
    let root = work.join("root");
    say("fetching packages");
    packages::fetch(&root, Variant::Extract, &PACKAGES).await?;

    say("kernel");
    let version = modules::kernel_version(&root.join("lib/modules"))?;
    kernel::unpack(&root.join("boot").join(format!("vmlinuz-{version}")), &out.join(KERNEL)).await?;

    say("initramfs");
    let applets =
        tool("asking busybox what it can do", Cmd::new(root.join("bin/busybox")).arg("--list")).await?;
    let applets = String::from_utf8_lossy(&applets).into_owned();
    let libraries = libraries(&root).await?;
    let (initrd, kernel) = (out.join(INITRD), version.clone());
    blocking(move || {
        let archive = initramfs(&root, &kernel, &applets, &libraries)?;
        std::fs::write(&initrd, archive).map_err(at(&initrd))?;
        packages::discard(&root)
    })
    .await?;
    Ok(Draft {
        description: "Tiny Linux in memory: Debian's cloud kernel, busybox and dropbear. Log in as root.",
        kind: Kind::Initramfs,
        machine: Machine::Microvm,
        cmdline: CMDLINE,
        kernel_version: version,
        // The kernel (52 MiB unpacked), 7 MiB twice while they are unpacked, and something to live on.
        min_memory_mib: 128,
    })
}

/// The shared libraries of [`PROGRAMS`], as paths in `root` (the loader among them), found by the packages' own loader.
async fn libraries(root: &Path) -> Result<BTreeSet<PathBuf>, ImageError> {
    let dirs = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|dir| root.join(dir));
    let path = format!("{}:{}", dirs[0].display(), dirs[1].display());
    let loader = root.join("lib64/ld-linux-x86-64.so.2");
    let mut found = BTreeSet::new();
    for (program, _) in PROGRAMS {
        let cmd = Cmd::new(&loader).arg("--library-path").arg(&path).arg("--list").arg(root.join(program));
        let list = tool("listing shared libraries", cmd).await?;
        // "libz.so.1 => /…/libz.so.1 (0x…)"; the loader and the kernel's vdso have no arrow.
        for line in String::from_utf8_lossy(&list).lines() {
            let Some((_, target)) = line.split_once(" => ") else { continue };
            let target = Path::new(target.split(" (").next().unwrap_or_default().trim());
            if !target.starts_with(root) {
                return Err(ImageError::Contents(format!("{program} lacks a library: {}", line.trim())));
            }
            found.insert(target.to_owned());
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(at(path))
}

/// The archive that becomes the guest's root file system.
fn initramfs(
    root: &Path,
    version: &str,
    applets: &str,
    libraries: &BTreeSet<PathBuf>,
) -> Result<Vec<u8>, ImageError> {
    let mut archive = Archive::default();
    for (path, mode) in DIRECTORIES {
        archive.directory(path, mode);
    }
    // The kernel opens it for init before init can mount anything.
    archive.character_device("dev/console", 0o600, 5, 1);
    for (path, mode, contents) in FILES {
        archive.file(path, mode, contents.as_bytes());
    }
    archive.file("bin/busybox", 0o755, &read(&root.join("bin/busybox"))?);
    let ours: BTreeSet<&str> = LINKS.iter().filter_map(|(path, _)| path.strip_prefix("sbin/")).collect();
    for applet in applets.lines().filter(|name| *name != "busybox" && !ours.contains(name)) {
        if !applet.bytes().all(|b| b.is_ascii_alphanumeric() || b"[-_".contains(&b)) {
            return Err(ImageError::Contents(format!("busybox has an applet '{}'", applet.escape_default())));
        }
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    for (path, target) in LINKS {
        archive.symlink(path, target);
    }
    for (from, to) in PROGRAMS {
        archive.file(to, 0o755, &read(&root.join(from))?);
    }
    archive.file("lib64/ld-linux-x86-64.so.2", 0o755, &read(&root.join("lib64/ld-linux-x86-64.so.2"))?);
    for library in libraries {
        let name = library.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| ImageError::Contents("a library without a name".into()))?;
        if !name.starts_with("ld-linux") {
            archive.file(&format!("lib/{name}"), 0o755, &read(library)?);
        }
    }
    modules::add(&mut archive, &root.join("lib/modules"), version, &MODULES)?;
    Ok(archive.finish())
}
