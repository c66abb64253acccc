//! Debian's packages as raw material: `mmdebstrap` fetches them, checks their signatures, and unpacks or installs them
//! into a directory of ours.

use std::path::Path;
use std::time::Duration;

use super::{ImageError, at, tool};
use crate::run::Cmd;

/// The release that the images are made of, whatever the host runs.
pub(super) const SUITE: &str = "bookworm";

/// How the packages are to end up in the directory.
pub(super) enum Variant<'a> {
    /// Unpacked only; no script of theirs runs.
    Extract,
    /// Installed as a small system (the essential packages and what is asked for); then these hooks run, with the
    /// directory as their argument.
    Install(&'a [&'a Path]),
}

/// Fills `root` (which must not exist) with `packages` and what they depend on.
pub(super) async fn fetch(root: &Path, variant: Variant<'_>, packages: &[&str]) -> Result<(), ImageError> {
    let mut cmd = Cmd::new("mmdebstrap")
        .args(["--quiet", "--mode=root", "--format=directory", "--architectures=amd64"])
        .arg(format!("--include={}", packages.join(",")))
        // No manuals, translations and the like, whether they are kept or thrown away later.
        .args([
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        ])
        .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"])
        // Guests start with the initramfs that we make; the kernel package's own would take a minute.
        .arg("--dpkgopt=path-exclude=/etc/kernel/postinst.d/initramfs-tools")
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .args(["--aptopt=APT::Install-Recommends \"false\"", "--aptopt=APT::Sandbox::User \"root\""])
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .umask(0o022)
        .deadline(Duration::from_secs(1200));
    cmd = match variant {
        Variant::Extract => cmd.arg("--variant=extract"),
        Variant::Install(hooks) => hooks.iter().fold(cmd.arg("--variant=minbase"), |cmd, hook| {
            let mut option = std::ffi::OsString::from("--customize-hook=");
            option.push(hook);
            cmd.arg(option)
        }),
    };
    cmd = cmd.arg(SUITE).arg(root).args(sources(Path::new("/etc/apt")));
    tool("fetching Debian packages", cmd).await.map(drop)
}

/// The host's own sources of [`SUITE`], where it has them, one line each; so that a local mirror or proxy is used for
/// images as well. Without any, `mmdebstrap` goes to Debian's own servers.
fn sources(apt: &Path) -> Vec<String> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(apt.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut found = Vec::new();
    for path in files {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        match path.extension().and_then(|e| e.to_str()) {
            Some("list") => text.lines().for_each(|line| one_line(line, &mut found)),
            Some("sources") => text.split("\n\n").for_each(|stanza| deb822(stanza, &mut found)),
            _ => {}
        }
    }
    // Without the main suite the rest is of no use.
    if !found.iter().any(|(_, suite)| suite == SUITE) {
        return vec![];
    }
    let mut lines: Vec<String> = Vec::new();
    for (uri, suite) in found {
        let line = format!("deb [signed-by={KEYRING}] {uri} {suite} main");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// The keys of Debian's archive, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Takes one source if it is the Debian archive (or a mirror of it) in our release.
fn take(uri: &str, suite: &str, components: &[&str], found: &mut Vec<(String, String)>) {
    let suites = [SUITE.to_owned(), format!("{SUITE}-updates"), format!("{SUITE}-security")];
    let archive = ["/debian", "/debian-security"].iter().any(|end| uri.trim_end_matches('/').ends_with(end));
    let scheme = ["http://", "https://"].iter().any(|scheme| uri.starts_with(scheme));
    let clean = uri.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'[' | b']' | b'"' | b'\\'));
    if archive && scheme && clean && suites.iter().any(|s| s == suite) && components.contains(&"main") {
        found.push((uri.to_owned(), suite.to_owned()));
    }
}

/// `deb [options] URI SUITE COMPONENT…`.
fn one_line(line: &str, found: &mut Vec<(String, String)>) {
    let line = line.split('#').next().unwrap_or_default().trim();
    let Some(rest) = line.strip_prefix("deb ") else { return };
    let rest = match rest.trim_start().strip_prefix('[') {
        Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
        None => rest,
    };
    let words: Vec<&str> = rest.split_whitespace().collect();
    if let [uri, suite, components @ ..] = words.as_slice() {
        take(uri, suite, components, found);
    }
}

/// A stanza of `Types:`, `URIs:`, `Suites:`, `Components:` (deb822).
fn deb822(stanza: &str, found: &mut Vec<(String, String)>) {
    let words = |name: &str| -> Vec<&str> {
        let lines = stanza.lines().filter_map(|line| line.split_once(':'));
        let values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        values.flat_map(str::split_whitespace).collect()
    };
    if !words("Types").contains(&"deb") || words("Enabled").contains(&"no") {
        return;
    }
    for uri in words("URIs") {
        for suite in words("Suites") {
            take(uri, suite, &words("Components"), found);
        }
    }
}

/// Removes a tree that [`fetch`] made.
pub(super) fn discard(root: &Path) -> Result<(), ImageError> {
    std::fs::remove_dir_all(root).map_err(at(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_mirror_is_used_when_it_has_our_release() {
        let dir = tempfile::tempdir().unwrap();
        let apt = dir.path();
        std::fs::create_dir(apt.join("sources.list.d")).unwrap();
        assert!(sources(apt).is_empty());
        let list = "# deb http://a.example/debian bookworm main\n\
            deb [arch=amd64 signed-by=/x] http://mirror.example/debian/ bookworm main contrib # ours\n\
            deb-src http://mirror.example/debian bookworm main\n\
            deb http://mirror.example/debian bookworm-backports main\n\
            deb http://other.example/docker bookworm main\n\
            deb http://other.example/debian bookworm stable\n";
        std::fs::write(apt.join("sources.list"), list).unwrap();
        let stanzas = "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n\
            Components: main\n\nTypes: deb\nEnabled: no\nURIs: http://b.example/debian\nSuites: bookworm\nComponents: main\n";
        std::fs::write(apt.join("sources.list.d/x.sources"), stanzas).unwrap();
        let expected = [
            format!("deb [signed-by={KEYRING}] http://mirror.example/debian/ bookworm main"),
            format!("deb [signed-by={KEYRING}] http://mirror.example/debian-security bookworm-security main"),
        ];
        assert_eq!(sources(apt), expected);
        // Another release, or only a part of ours: Debian's own servers.
        std::fs::remove_file(apt.join("sources.list")).unwrap();
        assert!(sources(apt).is_empty());
    }
}
