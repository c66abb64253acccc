//! What a cloud puts on a machine, so that what stays behind can be seen: devices, addresses, routes, rules, filters,
//! processes, mounts.

use std::collections::BTreeSet;
use std::path::Path;

use crate::namespace::Namespace;
use crate::process;

/// One line for everything that is there. Two of them are compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at everything of a namespace and of a data directory. `except` are processes that do not count.
    ///
    /// # Errors
    /// When something cannot be asked.
    pub fn take(inside: &Namespace, data_dir: &Path, except: &[i32]) -> anyhow::Result<Self> {
        let mut all = BTreeSet::new();
        let mut add = |kind: &str, text: &str| {
            for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
                all.insert(format!("{kind}: {line}"));
            }
        };
        add("device", &devices(inside)?);
        add("address", &inside.check(&["ip", "-brief", "address"])?);
        add("route", &inside.check(&["ip", "route", "show", "table", "all"])?);
        add("rule", &inside.check(&["ip", "rule"])?);
        add("filter", &inside.check(&["nft", "list", "ruleset"])?);
        add("traffic control", &inside.check(&["tc", "qdisc", "show"])?);
        for process in process::belonging(Some(inside.inode()?), data_dir, except) {
            add("process", &format!("{} {}", process.pid, process.command));
        }
        let directory = data_dir.to_string_lossy();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        for line in mounts.lines().filter(|l| l.contains(directory.as_ref())) {
            add("mount", line);
        }
        Ok(Self(all))
    }

    /// What is here and was not there before; what was there and is gone.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let new = self.0.difference(&before.0).map(|line| format!("left: {line}"));
        let gone = before.0.difference(&self.0).map(|line| format!("lost: {line}"));
        new.chain(gone).collect()
    }
}

/// Names and kinds of devices, without the numbers that differ each time.
fn devices(inside: &Namespace) -> anyhow::Result<String> {
    let text = inside.check(&["ip", "-brief", "link"])?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| name.split('@').next().unwrap_or(name))
        .collect::<Vec<_>>()
        .join("\n"))
}
