//! The recipe of `debian-12`: Debian on a disk, as its cloud images are: systemd, OpenSSH, and cloud-init that asks the
//! metadata service as on EC2.
//!
//! The guest is started with the kernel and the initramfs that lie beside the disk, so the disk has no boot loader and
//! no partition table: it is one ext4 file system, which cloud-init grows to the size of the instance's disk.

use std::path::Path;
use std::time::Duration;

use super::cpio::Archive;
use super::manifest::{DISK, Draft, INITRD, KERNEL};
use super::packages::{self, SUITE, Variant};
use super::{ImageError, Kind, Machine, Progress, Recipe, at, blocking, digest_of, kernel, modules, tool};
use crate::run::Cmd;

const PACKAGES: [&str; 24] = [
    "busybox-static",
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "curl",
    "dbus",
    "e2fsprogs",
    "ifupdown",
    "iproute2",
    "iputils-ping",
    "isc-dhcp-client",
    "kmod",
    "less",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "netbase",
    "openssh-server",
    "procps",
    "sudo",
    "systemd-sysv",
    "tzdata",
    "udev",
    "vim-tiny",
    "wget",
];

/// No `rw`: systemd checks the root file system first. Kernel messages are few, those of systemd make the console
/// readable. For `cryptomgr.notests` see `gon-linux`.
const CMDLINE: &str =
    "console=ttyS0 root=/dev/vda ro quiet panic=5 cryptomgr.notests systemd.show_status=true net.ifnames=1";

/// What the initramfs needs to reach the disk.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_mmio", "virtio_blk"];

/// The disk's size: room for the system (0.5 GiB) and some more; instances have a larger one.
const DISK_BYTES: u64 = 2 << 30;

const CUSTOMIZE: &str = include_str!("../../../../images/debian-12/customize");
const INITRD_INIT: &str = include_str!("../../../../images/debian-12/initrd-init");

/// Files added to the disk: path, contents. All belong to root and are readable by everybody.
const FILES: [(&str, &str); 7] = [
    ("etc/cloud/cloud.cfg.d/90_gon.cfg", include_str!("../../../../images/debian-12/cloud.cfg")),
    ("etc/default/locale", "LANG=C.UTF-8\n"),
    ("etc/fstab", "/dev/vda / ext4 errors=remount-ro 0 1\n"),
    ("etc/hostname", "localhost\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
    ("etc/network/interfaces", "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n"),
    ("etc/ssh/sshd_config.d/10-gon.conf", "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"),
];

/// Everything that decides what the image is.
pub(super) fn digest() -> String {
    let mut parts = vec!["debian-12 2", SUITE, CMDLINE, CUSTOMIZE, INITRD_INIT];
    parts.extend(PACKAGES);
    parts.extend(MODULES);
    parts.extend(FILES.iter().flat_map(|(path, contents)| [*path, *contents]));
    digest_of(&parts, &[(DISK_BYTES >> 20) as u32])
}

pub(super) async fn build(work: &Path, out: &Path, progress: Progress<'_>) -> Result<Draft, ImageError> {
    let say = |step: &str| progress(Recipe::Debian12, step);
    let (root, hook) = (work.join("root"), work.join("customize"));
    write_executable(&hook, CUSTOMIZE)?;
    say("installing Debian (about a minute)");
    packages::fetch(&root, Variant::Install(&[&hook]), &PACKAGES).await?;

    say("kernel and initramfs");
    let version = modules::kernel_version(&root.join("lib/modules"))?;
    kernel::unpack(&root.join("boot").join(format!("vmlinuz-{version}")), &out.join(KERNEL)).await?;
    let (tree, initrd, kernel) = (root.clone(), out.join(INITRD), version.clone());
    blocking(move || {
        std::fs::write(&initrd, initramfs(&tree, &kernel)?).map_err(at(&initrd))?;
        for (path, contents) in FILES {
            let path = tree.join(path);
            // Never through a link that a package may have put there.
            if path.symlink_metadata().is_ok() {
                std::fs::remove_file(&path).map_err(at(&path))?;
            }
            std::fs::write(&path, contents).map_err(at(&path))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            std::fs::set_permissions(&path, mode).map_err(at(&path))?;
        }
        Ok(())
    })
    .await?;

    say("file system");
    let disk = out.join(DISK);
    std::fs::File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).map_err(at(&disk))?;
    let cmd = Cmd::new("mke2fs")
        // Inode tables are written now (as holes), not by every guest's kernel in its first minutes.
        .args(["-q", "-F", "-t", "ext4", "-L", "gon-root", "-m", "1", "-J", "size=32"])
        .args(["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0", "-d"])
        .args([&root, &disk])
        .deadline(Duration::from_secs(600));
    tool("making the file system", cmd).await?;
    // Zeros that were written become holes again.
    let cmd = Cmd::new("fallocate").arg("--dig-holes").arg(&disk).deadline(Duration::from_secs(300));
    tool("making the disk sparse", cmd).await?;
    blocking(move || packages::discard(&root)).await?;
    Ok(Draft {
        description: "Debian 12 with systemd, OpenSSH and cloud-init. Log in as admin.",
        kind: Kind::Disk,
        machine: Machine::Q35,
        cmdline: CMDLINE,
        kernel_version: version,
        min_memory_mib: 384,
    })
}

fn write_executable(path: &Path, contents: &str) -> Result<(), ImageError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::File::options().write(true).create_new(true).mode(0o755).open(path);
    file.and_then(|mut file| file.write_all(contents.as_bytes())).map_err(at(path))
}

/// The archive that finds the disk.
fn initramfs(root: &Path, version: &str) -> Result<Vec<u8>, ImageError> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "lib", "lib/modules", "proc", "root", "sys"] {
        archive.directory(dir, 0o755);
    }
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, INITRD_INIT.as_bytes());
    let busybox = root.join("bin/busybox");
    archive.file("bin/busybox", 0o755, &std::fs::read(&busybox).map_err(at(&busybox))?);
    for applet in ["modprobe", "mount", "sh", "switch_root", "usleep"] {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    modules::add(&mut archive, &root.join("lib/modules"), version, &MODULES)?;
    Ok(archive.finish())
}
