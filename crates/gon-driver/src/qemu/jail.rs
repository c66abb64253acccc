//! The confinement of a QEMU process, entered by the process itself between fork and exec.
//!
//! Assumes privilege (mounting, namespaces). Promises that the process then sees a read-only root with the system's
//! programs (`/usr`, `/lib*`), its kernel and initramfs, `/dev/null` and, under KVM, its own `/dev/kvm`: no `/proc`,
//! no data directory, nobody else's files, no network but the taps it holds open; and that it can never get a
//! capability again. Its identity is dropped by [`crate::run`] right after.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

use super::command::{INITRD, KERNEL};

/// Preferred by the kernel as the one to go when memory is short: a guest goes before what serves all guests.
const OOM_SCORE: &CStr = c"300";

/// What a jail is made of, prepared so that entering it allocates nothing.
pub(super) struct Jail {
    /// An empty directory on the host where the new root is built; only this process sees it there.
    at: CString,
    steps: Vec<Step>,
}

enum Step {
    Dir(CString),
    Link {
        target: CString,
        name: CString,
    },
    /// Shows a file or directory of the host, read-only.
    Bind {
        source: CString,
        target: CString,
        is_dir: bool,
    },
    /// A character device of its own.
    Device {
        name: CString,
        device: libc::dev_t,
        owner: libc::uid_t,
    },
}

impl Jail {
    /// For a QEMU running as `uid`, with kernel and initramfs at their fixed places.
    pub(super) fn new(at: &Path, uid: u32, kernel: &Path, initrd: &Path, kvm: bool) -> io::Result<Self> {
        let mut steps = Vec::new();
        for name in ["usr", "dev", "boot", "etc"] {
            steps.push(Step::Dir(c(name)?));
        }
        steps.push(bind_dir("/usr", "usr")?);
        for name in ["lib", "lib64", "lib32", "libx32", "bin"] {
            let host = Path::new("/").join(name);
            match std::fs::symlink_metadata(&host) {
                Ok(meta) if meta.is_symlink() => {
                    let target = std::fs::read_link(&host)?;
                    steps.push(Step::Link { target: c(target)?, name: c(name)? });
                }
                Ok(meta) if meta.is_dir() => {
                    steps.push(Step::Dir(c(name)?));
                    steps.push(bind_dir(&host, name)?);
                }
                _ => {}
            }
        }
        let mut file = |source: &Path, target: &str| {
            let target = target.trim_start_matches('/');
            steps.push(Step::Bind { source: c(source)?, target: c(target)?, is_dir: false });
            io::Result::Ok(())
        };
        for host in ["/etc/ld.so.cache", "/dev/null", "/dev/urandom"] {
            if Path::new(host).exists() {
                file(Path::new(host), host)?;
            }
        }
        file(kernel, KERNEL)?;
        file(initrd, INITRD)?;
        if kvm {
            // Major 10, minor 232, by the kernel's list of devices.
            let device = libc::makedev(10, 232);
            steps.push(Step::Device { name: c("dev/kvm")?, device, owner: uid });
        }
        Ok(Self { at: c(at)?, steps })
    }

    /// Enters the jail and gives up every capability that could be got again.
    ///
    /// # Safety
    /// Only between fork and exec: it makes system calls and nothing else.
    pub(super) unsafe fn enter(&self) -> io::Result<()> {
        let null: *const libc::c_char = std::ptr::null();
        // SAFETY: system calls; every string ends with a zero and lives in `self` or is static; null where the call
        // allows it.
        unsafe {
            // In a user namespace or container this may be refused: then it keeps the inherited score.
            let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                let _ = libc::write(fd, OOM_SCORE.as_ptr().cast(), OOM_SCORE.count_bytes());
                libc::close(fd);
            }
            ok(libc::unshare(
                libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS,
            ))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            ok(libc::mount(null, c"/".as_ptr(), null, private, null.cast()))?;
            let options = c"mode=0755,size=64k,nr_inodes=64";
            let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
            let tmpfs = c"tmpfs".as_ptr();
            ok(libc::mount(tmpfs, self.at.as_ptr(), tmpfs, flags, options.as_ptr().cast()))?;
            ok(libc::chdir(self.at.as_ptr()))?;
            // The modes are meant as they are said; the process's own mask is for what it makes later.
            let mask = libc::umask(0);
            for step in &self.steps {
                step.take()?;
            }
            libc::umask(mask);
            // The old root lands on top of the new one and is let go.
            ok(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as libc::c_int)?;
            ok(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
            ok(libc::chdir(c"/".as_ptr()))?;
            let read_only =
                libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NOEXEC;
            ok(libc::mount(null, c"/".as_ptr(), null, read_only, null.cast()))?;
            drop_capabilities()
        }
    }
}

impl Step {
    /// # Safety
    /// As [`Jail::enter`]; the working directory is the new root.
    unsafe fn take(&self) -> io::Result<()> {
        let null: *const libc::c_char = std::ptr::null();
        // SAFETY: as in `enter`.
        unsafe {
            match self {
                Self::Dir(name) => ok(libc::mkdir(name.as_ptr(), 0o755)),
                Self::Link { target, name } => ok(libc::symlink(target.as_ptr(), name.as_ptr())),
                Self::Bind { source, target, is_dir } => {
                    if !is_dir {
                        let fd = libc::open(
                            target.as_ptr(),
                            libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC,
                            0o444,
                        );
                        ok(fd)?;
                        libc::close(fd);
                    }
                    ok(libc::mount(source.as_ptr(), target.as_ptr(), null, libc::MS_BIND, null.cast()))?;
                    // Devices stay devices: `/dev/null` is such a bind.
                    let nodev = if *is_dir { libc::MS_NODEV } else { 0 };
                    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID | nodev;
                    ok(libc::mount(null, target.as_ptr(), null, flags, null.cast()))
                }
                Self::Device { name, device, owner } => {
                    ok(libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o600, *device))?;
                    ok(libc::chown(name.as_ptr(), *owner, *owner))
                }
            }
        }
    }
}

/// Empties the bounding, ambient and inheritable sets. The effective and permitted ones go with the identity.
///
/// # Safety
/// Only between fork and exec.
unsafe fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // _LINUX_CAPABILITY_VERSION_3: two words of each set.
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: system calls on memory of this stack, laid out as the kernel's headers say.
    unsafe {
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                let error = io::Error::last_os_error();
                // Past the last one this kernel knows.
                if error.raw_os_error() == Some(libc::EINVAL) {
                    break;
                }
                return Err(error);
            }
        }
        ok(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
        ok(libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) as libc::c_int)?;
        for word in &mut data {
            word.inheritable = 0;
        }
        ok(libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) as libc::c_int)
    }
}

fn ok(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn c(path: impl AsRef<Path>) -> io::Result<CString> {
    CString::new(path.as_ref().as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn bind_dir(source: impl AsRef<Path>, target: &str) -> io::Result<Step> {
    Ok(Step::Bind { source: c(source)?, target: c(target)?, is_dir: true })
}
