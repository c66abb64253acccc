//! Our node: the network agent with its own switch, fed with documents as the network controller feeds it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Namespace, process};
use gon_driver::netlink::Netlink;
use gon_driver::ovs::Ovs;
use gon_net::service::BRIDGE;
use serde_json::{Value, json};

use super::Side;
use super::agent::{self, Agent};
use super::controller::{Controller, Prepared};
use super::document::{self, ADDRESSES, CLIENT, Groups, PREFIX, ROUTERS, SERVER};
use super::ovsdb::Client;
use super::place::{self, Place};
use super::stream::{Guest, Nic};

/// A bridge without any rules, in the same switch.
const PLAIN: &str = "plain";
/// How long bringing up may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a device is looked at.
const LOOK: Duration = Duration::from_micros(500);

pub struct Ours {
    agent: Option<Agent>,
    controller: Controller,
    guests: [Guest; 2],
    /// At the plain bridge.
    pub neighbours: [Guest; 2],
    node: Namespace,
    generation: u64,
    ports: usize,
    opened: bool,
    prepared: Option<Prepared>,
    floors: usize,
    // The last one: the others are in it.
    place: Place,
}

impl Ours {
    /// A node with so many ports beside the two that are measured. With `tso` its switch, and the guests, leave segments to
    /// whoever is last.
    pub fn start(ports: usize, tso: bool) -> anyhow::Result<Self> {
        let place = Place::make()?;
        let node = place.namespace("node")?;
        if tso {
            let config = agent::switch(place.dir());
            place::inside(&node, async move || {
                let mut ovs = Ovs::connect_or_start(&config, BRIDGE).await?;
                ovs.database().configure(&[("userspace-tso-enable", Some("true"))]).await?;
                // It is read once, at the start.
                ovs.switch_process().await.context("the switch runs")?.kill().await?;
                ovs.heal().await?;
                Ok(())
            })?;
        }
        let guest = |of: usize, no: u16| {
            let (name, mac) = (place.name(["client", "server"][of]), document::mac(no).to_string());
            let nic = Nic {
                namespace: &name,
                mac: Some(&mac),
                address: ADDRESSES[of],
                prefix: PREFIX,
                router: Some(ROUTERS[of]),
                offloads: tso,
                of_agent: true,
            };
            Guest::plug(&node, &document::device(no), &nic)
        };
        let guests = [guest(0, CLIENT)?, guest(1, SERVER)?];
        let neighbour = |n: u8| {
            let nic = Nic {
                namespace: &place.name(&format!("plain{n}")),
                mac: None,
                address: [10, 9, 0, n].into(),
                prefix: 24,
                router: None,
                offloads: tso,
                of_agent: false,
            };
            Guest::plug(&node, &format!("plain-{n}"), &nic)
        };
        let neighbours = [neighbour(1)?, neighbour(2)?];
        let controller = Controller::start(&place.dir().join("controller.sock"))?;
        let agent = Agent::start(&node, place.dir())?;
        agent.until(PATIENCE, ready)?;
        let mut ours = Self {
            agent: Some(agent),
            controller,
            guests,
            neighbours,
            node,
            generation: 0,
            ports,
            opened: false,
            prepared: None,
            floors: 0,
            place,
        };
        ours.prepare(false)?;
        ours.change(false)?;
        ours.applied(PATIENCE)?;
        let socket = format!("--db=unix:{}", ours.database().display());
        ours.node.check(&[
            "ovs-vsctl",
            &socket,
            "add-br",
            PLAIN,
            "--",
            "set",
            "bridge",
            PLAIN,
            "datapath_type=netdev",
            "fail_mode=standalone",
            "--",
            "add-port",
            PLAIN,
            "plain-1",
            "--",
            "add-port",
            PLAIN,
            "plain-2",
        ])?;
        Ok(ours)
    }

    fn database(&self) -> std::path::PathBuf {
        self.place.dir().join("ovs/db.sock")
    }
    fn agent(&self) -> anyhow::Result<&Agent> {
        self.agent.as_ref().context("the agent runs")
    }
    fn applied(&self, deadline: Duration) -> anyhow::Result<Instant> {
        self.controller.applied(self.prepared.as_ref().context("something is prepared")?, deadline)
    }
    /// The size of the document.
    pub fn document_bytes(&self) -> usize {
        self.prepared.as_ref().map_or(0, Prepared::bytes)
    }
    /// What the agent says of itself, when the last document is in force.
    pub fn status(&self) -> anyhow::Result<Value> {
        let generation = self.generation;
        self.agent()?.until(PATIENCE, |status| ready(status) && status["applied"]["generation"] == generation)
    }

    /// Milliseconds for no more than a tap and a port in a switch of so many ports, which no controller can do without.
    pub fn floor(&mut self) -> anyhow::Result<f64> {
        let client = Client::connect(&self.database(), "Open_vSwitch", "Open_vSwitch", &["cur_cfg"])?;
        self.floors += 1;
        let name = format!("floor-{}", self.floors);
        let start = Instant::now();
        place::taps(&self.node, std::slice::from_ref(&name))?;
        let mut operations = super::ovn::new_port(PLAIN, &name, &[]);
        operations.push(json!({"op": "mutate", "table": "Open_vSwitch", "where": [],
            "mutations": [["next_cfg", "+=", 1]]}));
        operations
            .push(json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}));
        let results = client.transact(operations)?;
        let wanted = results.last().and_then(|r| r["rows"][0]["next_cfg"].as_u64()).context("next_cfg")?;
        client.holds("Open_vSwitch", PATIENCE, |rows| {
            rows.values().any(|row| row["cur_cfg"].as_u64() >= Some(wanted))
        })?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        // The agent would take it for a guest's that left, and remove it in the middle of its next change.
        let socket = format!("--db=unix:{}", self.database().display());
        self.node.check(&["ovs-vsctl", &socket, "del-port", PLAIN, &name])?;
        self.node.check(&["ip", "link", "delete", &name])?;
        Ok(took)
    }
}

fn ready(status: &Value) -> bool {
    status["ready"] == true
}

impl Side for Ours {
    fn guests(&self) -> [&Guest; 2] {
        self.guests.each_ref()
    }
    fn prepare(&mut self, opened: bool) -> anyhow::Result<()> {
        self.generation += 1;
        self.opened = opened;
        let document = document::document(self.generation, self.ports, Groups::Shared, opened)?;
        self.prepared = Some(Prepared::new(&document)?);
        Ok(())
    }
    fn change(&mut self, _confirm: bool) -> anyhow::Result<()> {
        self.controller.publish(self.prepared.as_ref().context("something is prepared")?);
        Ok(())
    }
    fn confirmed(&mut self) -> anyhow::Result<Instant> {
        self.applied(PATIENCE)
    }
    fn plug(&mut self) -> anyhow::Result<f64> {
        let device = document::device(SERVER + 1 + u16::try_from(self.ports)?);
        self.ports += 1;
        self.prepare(self.opened)?;
        let (controller, document) = (&self.controller, self.prepared.as_ref().context("it is prepared")?);
        // A device that is up is the sign that its flows are in: what a hypervisor waits for.
        let took = place::inside(&self.node, async || {
            let netlink = Netlink::open()?;
            let start = Instant::now();
            controller.publish(document);
            while !netlink.link(&device).await?.is_some_and(|link| link.up) {
                ensure!(start.elapsed() < PATIENCE, "{device} does not come up");
                std::thread::sleep(LOOK);
            }
            Ok(start.elapsed())
        })?;
        self.confirmed()?;
        Ok(took.as_secs_f64() * 1e3)
    }
    fn restart(&mut self) -> anyhow::Result<f64> {
        self.agent = None;
        let start = Instant::now();
        let agent = Agent::start(&self.node, self.place.dir())?;
        agent.until(PATIENCE, ready)?;
        self.agent = Some(agent);
        Ok(start.elapsed().as_secs_f64())
    }
    fn kill_switch(&mut self) -> anyhow::Result<()> {
        // The agent notices, and starts it.
        process::kill_hard(self.place.process("ovs-vswitchd")?);
        Ok(())
    }
    fn resident(&self) -> anyhow::Result<f64> {
        place::resident(self.agent()?.pid())
    }
    fn flows(&self) -> anyhow::Result<f64> {
        self.status()?["flows"].as_f64().context("a number of flows")
    }
}
