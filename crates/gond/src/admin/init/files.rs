//! Files of the system that we write, or write a part of. Whole or not at all, also when the power fails; a file that is
//! as it should be is not touched; and what we wrote can be taken away again.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::Path;

use anyhow::Context;
use gon_driver::run::RunAs;

const BEGIN: &str = "# >>> gon: written by 'gond admin init', removed by 'gond admin uninstall'";
const END: &str = "# <<< gon";

/// Who a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// User.
    pub user: &'a str,
    /// Mode.
    pub mode: u32,
}

/// Root's, readable for everybody.
pub const PUBLIC: Owner<'static> = Owner { user: "root", mode: 0o644 };
/// Root's alone.
pub const SECRET: Owner<'static> = Owner { user: "root", mode: 0o600 };

/// Makes a file have this content, owner and mode; whether it had not.
pub fn put(path: &Path, text: &str, owner: Owner<'_>) -> anyhow::Result<bool> {
    let who = RunAs::named(owner.user).with_context(|| format!("the user '{}'", owner.user))?;
    let same = || {
        let meta = std::fs::symlink_metadata(path).ok()?;
        let right = meta.is_file()
            && (meta.uid(), meta.gid()) == (who.uid, who.gid)
            && meta.permissions().mode() & 0o7777 == owner.mode;
        (right && std::fs::read_to_string(path).ok()? == text).then_some(())
    };
    if same().is_some() {
        return Ok(false);
    }
    let write = || {
        let dir = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(dir)?;
        let beside = dir.join(format!(
            ".{}.gon-new",
            path.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default()
        ));
        // One that a killed process left may have another mode.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        chown(&beside, Some(who.uid), Some(who.gid))?;
        file.set_permissions(std::fs::Permissions::from_mode(owner.mode))?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().with_context(|| path.display().to_string())?;
    Ok(true)
}

/// Makes a directory be there with this owner and mode.
pub fn directory(path: &Path, owner: Owner<'_>) -> anyhow::Result<()> {
    let who = RunAs::named(owner.user).with_context(|| format!("the user '{}'", owner.user))?;
    let make = || {
        std::fs::create_dir_all(path)?;
        chown(path, Some(who.uid), Some(who.gid))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(owner.mode))
    };
    make().with_context(|| path.display().to_string())
}

/// Gives everything in a directory, and itself, to a user; modes stay.
pub fn give(path: &Path, user: &str) -> anyhow::Result<()> {
    let who = RunAs::named(user).with_context(|| format!("the user '{user}'"))?;
    give_to(path, &who).with_context(|| path.display().to_string())
}

fn give_to(path: &Path, who: &RunAs) -> std::io::Result<()> {
    std::os::unix::fs::lchown(path, Some(who.uid), Some(who.gid))?;
    if std::fs::symlink_metadata(path)?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_to(&entry?.path(), who)?;
        }
    }
    Ok(())
}

/// Removes a file; whether it was there.
pub fn remove(path: &Path) -> anyhow::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// A text with our block at its beginning, where rules that are read in order come first.
#[must_use]
pub fn with_block(text: &str, block: &str) -> String {
    format!("{BEGIN}\n{}\n{END}\n{}", block.trim_end(), without_block(text))
}

/// A text without our block.
#[must_use]
pub fn without_block(text: &str) -> String {
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else { return text.to_owned() };
    let rest = text.get(end..).and_then(|rest| rest.split_once('\n')).map_or("", |(_, rest)| rest);
    format!("{}{rest}", text.get(..begin).unwrap_or_default())
}

/// Makes a file of somebody else's have our block, keeping its owner and mode; whether it had not.
pub fn put_block(path: &Path, block: Option<&str>) -> anyhow::Result<bool> {
    let old = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let new = match block {
        Some(block) => with_block(&old, block),
        None => without_block(&old),
    };
    if old == new {
        return Ok(false);
    }
    let replace = || {
        let meta = std::fs::metadata(path)?;
        let beside = path.with_extension("gon-new");
        std::fs::write(&beside, &new)?;
        chown(&beside, Some(meta.uid()), Some(meta.gid()))?;
        std::fs::set_permissions(&beside, meta.permissions())?;
        std::fs::File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, path)
    };
    replace().with_context(|| path.display().to_string())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_block_comes_first_once_and_goes_without_a_trace() {
        let theirs = "# PostgreSQL\nlocal all all peer\n";
        let once = with_block(theirs, "local gon gon peer map=gon\n");
        assert!(once.starts_with("# >>> gon"));
        assert!(once.find("map=gon") < once.find("local all"));
        assert_eq!(with_block(&once, "local gon gon peer map=gon"), once);
        let other = with_block(&once, "something else");
        assert!(!other.contains("map=gon") && other.matches(BEGIN).count() == 1);
        assert_eq!(without_block(&once), theirs);
        assert_eq!(without_block(theirs), theirs);
    }

    #[test]
    fn a_file_that_is_right_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file");
        let owner = Owner { user: "root", mode: 0o640 };
        assert!(put(&path, "one", owner).unwrap());
        let before = std::fs::metadata(&path).unwrap();
        assert_eq!(before.permissions().mode() & 0o777, 0o640);
        assert!(!put(&path, "one", owner).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), before.ino());
        // Another mode, or another content, is put right.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(put(&path, "one", owner).unwrap());
        assert!(put(&path, "two", owner).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
    }

    #[test]
    fn a_block_keeps_the_files_owner_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pg_hba.conf");
        std::fs::write(&path, "theirs\n").unwrap();
        chown(&path, Some(1), Some(2)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(put_block(&path, Some("ours")).unwrap());
        assert!(!put_block(&path, Some("ours")).unwrap());
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o777), (1, 2, 0o640));
        assert!(put_block(&path, None).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs\n");
    }
}
