//! An instance's own files: links to its image and its disks.
//!
//! Assumes that image files are never written in place (the builder renames whole directories). Promises that an
//! instance keeps what it was launched from, also when the image is rebuilt or removed; that what is here is whole or
//! not here at all; and that a disk once made is never made again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use gon_driver::image::{Machine as ImageMachine, Manifest};
use gon_driver::qemu::{self, Boot, Disk, Guest, Machine, Nic};
use gon_proto::InstanceSpec;

use super::crash;

/// Why an instance's files could not be made. `permanent`: trying again changes nothing by itself.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct FilesError {
    /// In words for the user.
    pub what: String,
    /// Whether trying again is of no use.
    pub permanent: bool,
}

fn permanent(what: impl Into<String>) -> FilesError {
    FilesError { what: what.into(), permanent: true }
}

fn failed(doing: &str) -> impl Fn(io::Error) -> FilesError {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            permanent("the node has no room for its disk (insufficient capacity)")
        }
        _ => FilesError { what: format!("{doing}: {error}"), permanent: false },
    }
}

/// Makes what is missing in `dir` and describes the machine. Blocks for the disk.
pub fn prepare(dir: &Path, images: &Path, spec: &InstanceSpec, emulated: bool) -> Result<Guest, FilesError> {
    let image_dir = dir.join("image");
    let manifest = if image_dir.exists() { own_image(&image_dir)? } else { link_image(dir, images, spec)? };
    crash::point("C17:before");
    let disks = disks(dir, &image_dir, &manifest, spec)?;
    crash::point("C17:after");
    Ok(Guest {
        name: spec.id.to_string(),
        uuid: qemu::ec2_uuid(spec.id.uuid()),
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        machine: match manifest.machine {
            ImageMachine::Microvm => Machine::Microvm,
            ImageMachine::Q35 => Machine::Q35,
        },
        boot: Boot {
            kernel: manifest.kernel_path(&image_dir),
            initrd: manifest.initrd_path(&image_dir),
            cmdline: manifest.kernel_cmdline(emulated),
        },
        // Taps have no virtual header, whatever the datapath.
        nics: spec
            .nics
            .iter()
            .map(|nic| Nic { device: nic.device.clone(), mac: nic.mac, mtu: nic.mtu, offloads: false })
            .collect(),
        disks,
        run_as_uid: spec.run_as_uid,
    })
}

/// The image as it was when the instance was first started.
fn own_image(image_dir: &Path) -> Result<Manifest, FilesError> {
    Manifest::load(image_dir).map_err(|error| permanent(format!("its copy of the image is damaged: {error}")))
}

/// Links the image's files into the instance.
fn link_image(dir: &Path, images: &Path, spec: &InstanceSpec) -> Result<Manifest, FilesError> {
    let name = &spec.image.name;
    let named = !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
    if !named {
        return Err(permanent("its image has no name that a directory could have"));
    }
    let source = images.join(name);
    if !source.exists() {
        return Err(permanent(format!("the node has no image '{name}'")));
    }
    let manifest = Manifest::load(&source).map_err(|error| permanent(format!("image '{name}': {error}")))?;
    if manifest.recipe != spec.image.digest {
        return Err(permanent(format!("the node has another version of image '{name}'")));
    }
    crash::point("C16:before");
    let beside = dir.join("image.new");
    let made = failed("copying its image");
    match std::fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(made(error)),
        _ => {}
    }
    std::fs::create_dir(&beside).map_err(&made)?;
    let disk = manifest.disk.as_ref().map(|disk| disk.file.as_str());
    let files = [gon_driver::image::MANIFEST_FILE, &manifest.kernel.file, &manifest.initrd.file];
    for file in files.into_iter().chain(disk) {
        let (from, to) = (source.join(file), beside.join(file));
        match std::fs::hard_link(&from, &to) {
            // On another file system: a copy of its own.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                std::fs::copy(&from, &to).map_err(&made)?;
                File::open(&to).and_then(|file| file.sync_all()).map_err(&made)?;
            }
            other => other.map_err(&made)?,
        }
    }
    // The image may have been replaced while we linked: what we have is checked again, as a whole.
    let manifest = own_image(&beside)?;
    if manifest.recipe != spec.image.digest {
        return Err(FilesError { what: format!("image '{name}' was just replaced"), permanent: false });
    }
    sync(&beside).map_err(&made)?;
    std::fs::rename(&beside, dir.join("image")).map_err(&made)?;
    crash::point("C16:after");
    Ok(manifest)
}

/// The disks of the instance, made where they are missing: slot 0 over the image's disk, the others empty.
fn disks(
    dir: &Path,
    image_dir: &Path,
    manifest: &Manifest,
    spec: &InstanceSpec,
) -> Result<Vec<Disk>, FilesError> {
    let made = failed("making its disk");
    let mut disks = Vec::new();
    for (slot, disk) in spec.disks.iter().enumerate() {
        let overlay = dir.join(format!("disk{slot}.qcow2"));
        let size = u64::from(disk.size_gib) << 30;
        let base: Option<PathBuf> = if slot == 0 { manifest.disk_path(image_dir) } else { None };
        if let (Some(_), Some(image)) = (&base, &manifest.disk)
            && size < image.virtual_bytes
        {
            return Err(permanent(format!("a root disk of {} GiB is smaller than its image", disk.size_gib)));
        }
        if !overlay.exists() {
            let beside = overlay.with_extension("new");
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(made(error)),
                _ => {}
            }
            qemu::qcow2::create(&beside, size).map_err(|error| match error {
                qemu::qcow2::Qcow2Error::Io(error) => made(error),
                other => permanent(other.to_string()),
            })?;
            crash::point("C19:before");
            std::fs::rename(&beside, &overlay).map_err(&made)?;
            sync(dir).map_err(&made)?;
            crash::point("C19:after");
        }
        disks.push(Disk { overlay, base });
    }
    if manifest.disk.is_some() && disks.is_empty() {
        return Err(permanent("its image has a disk, and it has none"));
    }
    Ok(disks)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes everything in `dir` but the journal and the lock, which say what is going on.
pub fn remove(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if ["journal.json", "lock"].iter().any(|keep| entry.file_name() == *keep) {
            continue;
        }
        let removed = if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())
        } else {
            std::fs::remove_file(entry.path())
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync(dir)
}
