//! Images: what a guest boots from, and how the default ones are made.
//!
//! An image is a directory `IMAGES_DIR/<name>/` with a [`Manifest`] and the files it names. [`build`] makes the images
//! that come with the platform from Debian packages; nothing of the host but its package tools goes into them, and
//! nothing is installed on the host.
//!
//! Assumes root, `mmdebstrap`, `e2fsprogs` and `lz4`/`zstd`/`xz`/`gzip` (see `scripts/setup.sh`). Promises that an image
//! directory appears whole or not at all, that an up-to-date image is left untouched, that several builders on one
//! directory wait for each other, and that every file carries its digest.

pub(crate) mod cpio;
mod debian;
mod gon_linux;
mod kernel;
mod manifest;
mod modules;
mod packages;
mod tsc;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, RenameFlags};

pub use manifest::{Arch, DiskFile, ImageFile, Kind, MANIFEST_FILE, Machine, Manifest, SCHEMA};
pub use tsc::host_tsc_khz;

use crate::run::{Cmd, RunError, run};

/// An image that this program knows how to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recipe {
    /// A tiny system in memory: Debian's kernel, busybox, dropbear.
    GonLinux,
    /// Debian 12 on a disk, with systemd and cloud-init.
    Debian12,
}

impl Recipe {
    /// All of them, in the order in which they are worth building.
    pub const ALL: [Self; 2] = [Self::GonLinux, Self::Debian12];

    /// The image's name and that of its directory.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GonLinux => "gon-linux",
            Self::Debian12 => "debian-12",
        }
    }
    /// SHA-256 over everything the recipe consists of. Two builds of one digest differ only in the versions of the
    /// packages that the archive had that day.
    #[must_use]
    pub fn digest(self) -> String {
        match self {
            Self::GonLinux => gon_linux::digest(),
            Self::Debian12 => debian::digest(),
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no image is called '{0}'; there are gon-linux and debian-12")]
pub struct UnknownRecipe(pub String);

impl FromStr for Recipe {
    type Err = UnknownRecipe;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|recipe| recipe.name() == name)
            .ok_or_else(|| UnknownRecipe(name.to_owned()))
    }
}

/// Why an image could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A tool of the host failed.
    #[error("{step}")]
    Tool {
        /// What we were doing.
        step: &'static str,
        /// What the tool said.
        #[source]
        source: RunError,
    },
    /// A file could not be read, written or moved.
    #[error("{}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A manifest is not one.
    #[error("{} is not a valid manifest", path.display())]
    Parse {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest or the files beside it contradict the rules.
    #[error("image in {}: {reason}", path.display())]
    Invalid {
        /// The image's directory.
        path: PathBuf,
        /// Which rule.
        reason: String,
    },
    /// What the packages contain is not what the recipe expects of them.
    #[error("unexpected package contents: {0}")]
    Contents(String),
}

/// The digest of a recipe's texts and numbers; which is which does not get lost.
fn digest_of(texts: &[&str], numbers: &[u32]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    for number in numbers {
        hash.update(number.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Attaches the path to an I/O error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { path, source }
}

/// Runs a tool; `step` says in an error what for.
async fn tool(step: &'static str, cmd: Cmd) -> Result<Vec<u8>, ImageError> {
    match run(cmd).await {
        Ok(output) => Ok(output.stdout),
        Err(source) => Err(ImageError::Tool { step, source }),
    }
}

/// Runs file work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ImageError::Contents(format!("the builder stopped: {error}"))),
    }
}

/// Where a build tells how far it is: the image, and what it does now.
pub type Progress<'a> = &'a (dyn Fn(Recipe, &str) + Send + Sync);

/// One image after [`build`].
#[derive(Debug, Clone)]
pub struct Built {
    /// Which one.
    pub recipe: Recipe,
    /// Its directory.
    pub dir: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
    /// Whether this call made it; otherwise it was there already.
    pub fresh: bool,
    /// How long it took.
    pub took: Duration,
}

/// Makes the images that are missing in `images_dir` or were made by another version of their recipe. Takes about
/// 10 s for `gon-linux` and two minutes for `debian-12`, and needs the Debian archive; images that are up to date need
/// nothing.
///
/// A replaced image's old files stay readable for whoever has them open, but their names are gone: what must outlive a
/// rebuild (a base that overlays refer to) has to hold a link of its own.
pub async fn build(
    images_dir: &Path,
    recipes: &[Recipe],
    progress: Progress<'_>,
) -> Result<Vec<Built>, ImageError> {
    std::fs::create_dir_all(images_dir).map_err(at(images_dir))?;
    let mut built = Vec::with_capacity(recipes.len());
    for &recipe in recipes {
        built.push(build_one(images_dir, recipe, progress).await?);
    }
    Ok(built)
}

async fn build_one(images_dir: &Path, recipe: Recipe, progress: Progress<'_>) -> Result<Built, ImageError> {
    let started = Instant::now();
    let dir = images_dir.join(recipe.name());
    let done = |manifest, fresh| Built { recipe, dir: dir.clone(), manifest, fresh, took: started.elapsed() };
    if let Some(manifest) = up_to_date(&dir, recipe) {
        return Ok(done(manifest, false));
    }
    let _lock = lock(images_dir, recipe, progress).await?;
    // Somebody else may have made it while we waited.
    if let Some(manifest) = up_to_date(&dir, recipe) {
        return Ok(done(manifest, false));
    }
    let work = Workdir::create(images_dir, recipe)?;
    let out = work.0.join("image");
    std::fs::create_dir(&out).map_err(at(&out))?;
    let draft = match recipe {
        Recipe::GonLinux => gon_linux::build(&work.0, &out, progress).await?,
        Recipe::Debian12 => debian::build(&work.0, &out, progress).await?,
    };
    progress(recipe, "digests");
    let manifest = manifest::complete(recipe, draft, &out).await?;
    publish(&out, &dir)?;
    Ok(done(manifest, true))
}

/// The image in `dir`, when it is this recipe's and all its files are there.
fn up_to_date(dir: &Path, recipe: Recipe) -> Option<Manifest> {
    let manifest = Manifest::load(dir).ok()?;
    (manifest.recipe == recipe.digest()).then_some(manifest)
}

/// One builder at a time for each image of a directory. The lock goes with the process that holds it.
async fn lock(images_dir: &Path, recipe: Recipe, progress: Progress<'_>) -> Result<File, ImageError> {
    let path = images_dir.join(format!(".{recipe}.lock"));
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    let try_lock = |operation| rustix::fs::flock(&file, operation);
    match try_lock(FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => progress(recipe, "waiting for another builder"),
        Err(errno) => return Err(at(&path)(errno.into())),
    }
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        match try_lock(FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(at(&path)(errno.into())),
        }
    }
}

/// A directory to build in, on the same file system as the result; gone when dropped. What an earlier builder left
/// when it was killed is removed first (the lock is ours, so nobody works in it).
struct Workdir(PathBuf);

impl Workdir {
    fn create(images_dir: &Path, recipe: Recipe) -> Result<Self, ImageError> {
        let path = images_dir.join(format!(".{recipe}.work"));
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(at(&path))?;
        }
        std::fs::create_dir(&path).map_err(at(&path))?;
        Ok(Self(path))
    }
}
impl Drop for Workdir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a build directory could not be removed");
        }
    }
}

/// Puts a finished directory in its place in one step; an older one ends up in the build directory and goes with it.
fn publish(out: &Path, dir: &Path) -> Result<(), ImageError> {
    use rustix::fs::{CWD, renameat_with};
    for entry in std::fs::read_dir(out).map_err(at(out))? {
        let path = entry.map_err(at(out))?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(at(&path))?;
    }
    let flags = if dir.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, out, CWD, dir, flags).map_err(|errno| at(dir)(errno.into()))?;
    if let Some(parent) = dir.parent() {
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(at(parent))?;
    }
    Ok(())
}
