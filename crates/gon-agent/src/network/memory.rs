//! What the agent must remember about the switch between two lives of its own: which process carried the packets, when
//! that one last lost its connection table, and whose connections each zone holds.
//!
//! None of it outlives a boot (connections do not either), so it is not synced; it is replaced whole by rename.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use gon_driver::ovs::Datapath;
use gon_driver::run::Pid;
use gon_net::{Compiled, Mirror, Owner};
use serde::{Deserialize, Serialize};

/// How long after a loss connections are taken up again from their middle (rule R14).
const WINDOW: u64 = 60;

/// The memory.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    process: Option<Pid>,
    /// Seconds since boot.
    lost_at: Option<u64>,
    zones: BTreeMap<u16, Owner>,
    /// The process that was told that its flows are in.
    #[serde(default)]
    released: Option<Pid>,
}

impl Memory {
    /// Reads what is there. What cannot be read is forgotten: at worst, open connections are cut.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let path = dir.join("switch.json");
        let content = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path, content: content.unwrap_or_default() }
    }

    fn save(&self) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec(&self.content)?)?;
        std::fs::rename(&beside, &self.path)
    }

    /// Learns which process carries the packets now. If it is not the one of before, connections that it tracked itself
    /// are gone.
    pub fn meet(&mut self, process: Option<Pid>, datapath: Datapath, now: u64) -> io::Result<()> {
        let before = self.content.process;
        if process.is_none() || before == process {
            return Ok(());
        }
        let same_boot = before.zip(process).is_some_and(|(a, b)| a.boot == b.boot);
        if !same_boot {
            self.content = Content::default();
        } else if datapath == Datapath::Netdev {
            self.content.lost_at = (!self.content.zones.is_empty()).then_some(now);
            self.content.zones.clear();
        }
        self.content.process = process;
        self.save()
    }

    /// Whether this process was told that its flows are in.
    #[must_use]
    pub fn is_released(&self, process: Option<Pid>) -> bool {
        process.is_some() && self.content.released == process
    }

    /// It was told.
    pub fn release(&mut self, process: Option<Pid>) -> io::Result<()> {
        self.content.released = process;
        self.save()
    }

    /// How to treat connections that the switch does not know.
    #[must_use]
    pub fn mirror(&self, now: u64) -> Mirror {
        match self.content.lost_at {
            None => Mirror::Off,
            Some(at) if now < at.saturating_add(WINDOW) => Mirror::Accepting,
            Some(_) => Mirror::Keeping,
        }
    }

    /// Whose the connections in each zone are.
    #[must_use]
    pub const fn zones(&self) -> &BTreeMap<u16, Owner> {
        &self.content.zones
    }

    /// Before new owners get their zones: they are remembered, those to be emptied first keep their old ones.
    pub fn expect(&mut self, next: &Compiled) -> io::Result<()> {
        let mut zones = self.content.zones.clone();
        for (no, zone) in &next.zones {
            zones.entry(*no).or_insert(zone.owner);
        }
        self.replace(zones)
    }

    /// After zones that changed hands were emptied.
    pub fn settle(&mut self, now: &Compiled) -> io::Result<()> {
        self.replace(now.zones.iter().map(|(no, zone)| (*no, zone.owner)).collect())
    }

    fn replace(&mut self, zones: BTreeMap<u16, Owner>) -> io::Result<()> {
        if zones == self.content.zones {
            return Ok(());
        }
        self.content.zones = zones;
        self.save()
    }
}

#[cfg(test)]
mod tests {
    use gon_types::MacAddr;

    use super::*;
    use crate::network::samples;

    fn compiled(ports: &[(u16, &str)]) -> Compiled {
        let ports = ports.iter().map(|(no, address)| samples::port(*no, address)).collect();
        let facts = gon_net::NodeFacts {
            node: samples::node(),
            meta_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            external: None,
            overlay: None,
            mirror: Mirror::Off,
        };
        gon_net::compile(&samples::document(1, ports), &facts)
    }

    #[test]
    fn a_zone_is_emptied_before_its_next_owner_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (compiled(&[(16, "10.0.1.5")]), compiled(&[(16, "10.0.1.6"), (17, "10.0.1.7")]));
        let mut memory = Memory::open(dir.path());
        memory.settle(&old).unwrap();
        memory.expect(&new).unwrap();
        // Killed here: the next life still knows that zone 16 has another's connections.
        let memory = Memory::open(dir.path());
        assert_eq!(gon_net::zones_to_empty(memory.zones(), &new), [16]);
        assert_eq!(memory.zones().len(), 2);
        let mut memory = memory;
        memory.settle(&new).unwrap();
        assert!(gon_net::zones_to_empty(Memory::open(dir.path()).zones(), &new).is_empty());
    }

    #[test]
    fn only_a_switch_that_lost_its_connections_is_mirrored() {
        let dir = tempfile::tempdir().unwrap();
        let process = |pid, boot| Some(Pid { pid, start_time: 1, boot });
        let mut memory = Memory::open(dir.path());
        memory.meet(process(1, 1), Datapath::Netdev, 100).unwrap();
        assert_eq!(memory.mirror(100), Mirror::Off);
        memory.settle(&compiled(&[(16, "10.0.1.5")])).unwrap();
        memory.meet(process(1, 1), Datapath::Netdev, 110).unwrap();
        assert_eq!(memory.mirror(110), Mirror::Off);

        memory.meet(process(2, 1), Datapath::Netdev, 200).unwrap();
        assert!(memory.zones().is_empty());
        assert_eq!(memory.mirror(259), Mirror::Accepting);
        assert_eq!(Memory::open(dir.path()).mirror(260), Mirror::Keeping);

        // After a boot nothing is left to keep; the kernel's table survives its vswitchd.
        memory.meet(process(2, 2), Datapath::Netdev, 5).unwrap();
        assert_eq!(memory.mirror(5), Mirror::Off);
        memory.settle(&compiled(&[(16, "10.0.1.5")])).unwrap();
        memory.meet(process(3, 2), Datapath::System, 6).unwrap();
        assert_eq!((memory.mirror(6), memory.zones().len()), (Mirror::Off, 1));
    }

    #[test]
    fn a_switch_is_released_once() {
        let dir = tempfile::tempdir().unwrap();
        let process = |pid| Some(Pid { pid, start_time: 1, boot: 1 });
        let mut memory = Memory::open(dir.path());
        assert!(!memory.is_released(None) && !memory.is_released(process(1)));
        memory.release(process(1)).unwrap();
        let memory = Memory::open(dir.path());
        assert!(memory.is_released(process(1)));
        // The next one waits, and one that nobody knows might.
        assert!(!memory.is_released(process(2)) && !memory.is_released(None));
    }
}
