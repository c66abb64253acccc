//! The peer: OVN of the distribution, with databases, northd, controller and switch of its own on private sockets, the same
//! topology and the same rules.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Namespace, process, wait};
use serde_json::{Value, json};

use super::Side;
use super::document::{self, ADDRESSES, CLIENT, Groups, OPEN, OPENED, PREFIX, ROUTERS, RULES, SERVER};
use super::ovsdb::Client;
use super::place::{self, Place};
use super::stream::{Guest, Nic};

const SCHEMAS: [(&str, &str); 3] = [
    ("conf", "/usr/share/openvswitch/vswitch.ovsschema"),
    ("nb", "/usr/share/ovn/ovn-nb.ovsschema"),
    ("sb", "/usr/share/ovn/ovn-sb.ovsschema"),
];
const PATIENCE: Duration = Duration::from_secs(300);
const COMMAND: Duration = Duration::from_secs(60);
/// Ports that are made at once.
const CHUNK: usize = 50;
const NORTHBOUND: &str = "OVN_Northbound";

/// Whether it can be measured here.
pub fn installed() -> bool {
    let found = |program: &str| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| folder.join(program).exists())
    };
    ["ovn-northd", "ovn-controller", "ovn-nbctl"].iter().all(|program| found(program))
        && SCHEMAS.iter().all(|(_, schema)| Path::new(schema).exists())
}

/// Operations that make a port of a switch.
pub fn new_port(bridge: &str, name: &str, external: &[(&str, &str)]) -> Vec<Value> {
    let (interface, port) =
        (format!("i_{}", name.replace('-', "_")), format!("p_{}", name.replace('-', "_")));
    vec![
        json!({"op": "insert", "table": "Interface", "uuid-name": interface,
            "row": {"name": name, "external_ids": ["map", external]}}),
        json!({"op": "insert", "table": "Port", "uuid-name": port,
            "row": {"name": name, "interfaces": ["named-uuid", interface]}}),
        json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
            "mutations": [["ports", "insert", ["named-uuid", port]]]}),
    ]
}

/// Operations that add an ACL to a port group.
fn new_acl(group: &str, name: &str, expression: &str) -> [Value; 2] {
    [
        json!({"op": "insert", "table": "ACL", "uuid-name": name, "row": {"direction": "to-lport",
            "match": expression, "priority": 1002, "action": "allow-related"}}),
        json!({"op": "mutate", "table": "Port_Group", "where": [["name", "==", group]],
            "mutations": [["acls", "insert", ["set", [["named-uuid", name]]]]]}),
    ]
}

/// The rules of a group, the last `named` of them about its own members.
fn acls(group: &str, named: u16) -> Vec<Value> {
    let mut all = Vec::new();
    for k in 0..RULES {
        let peer = if k < RULES - named { format!("10.{k}.0.0/16") } else { format!("${group}_ip4") };
        let expression =
            format!("outport == @{group} && ip4 && ip4.src == {peer} && tcp.dst == {}", OPEN + k);
        all.extend(new_acl(group, &format!("{group}_{k}"), &expression));
    }
    all
}

pub struct Ovn {
    children: Vec<(&'static str, Child)>,
    north: Client,
    switch: Client,
    guests: [Guest; 2],
    node: Namespace,
    dir: PathBuf,
    groups: Groups,
    ports: usize,
    base: usize,
    /// The rule that comes and goes, if it is there, and what to do next.
    rule: Option<String>,
    next: bool,
    /// The last change that the node is to confirm.
    asked: u64,
    // The last one: the others are in it.
    _place: Place,
}

impl Drop for Ovn {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts one of its programs, in a namespace or where this process is.
fn spawn(node: Option<&Namespace>, dir: &Path, program: &str, args: &[String]) -> anyhow::Result<Child> {
    let mut command = node.map_or_else(|| Command::new(program), |node| node.command(program));
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVN_RUNDIR", "OVN_LOGDIR", "OVN_DBDIR"] {
        command.env(variable, dir);
    }
    let log = File::options().append(true).create(true).open(dir.join(format!("{program}.log")))?;
    command.args(args).args(["-vsyslog:off", "-vconsole:warn"]).stdin(Stdio::null());
    Ok(command.stdout(log.try_clone()?).stderr(log).spawn()?)
}

fn appears(path: &Path) -> anyhow::Result<()> {
    wait::holds(&path.display().to_string(), Duration::from_secs(30), || Ok(path.exists()))?;
    Ok(())
}

/// The commands of a person; none of them is in what is measured.
fn control(dir: &Path, program: &str, database: &str, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.env("OVS_RUNDIR", dir).env("OVN_RUNDIR", dir);
    command.arg(format!("--db=unix:{}", dir.join(database).display())).args(args);
    process::check(&mut command, COMMAND)
}

impl Ovn {
    pub fn start(ports: usize, groups: Groups) -> anyhow::Result<Self> {
        let place = Place::make()?;
        let dir = place.dir().to_owned();
        let node = place.namespace("ovn")?;
        let file = |name: &str| dir.join(name).display().to_string();
        let mut children = Vec::new();
        for (name, schema) in SCHEMAS {
            let database = file(&format!("{name}.db"));
            let mut command = Command::new("ovsdb-tool");
            process::check(command.args(["create", &database, schema]), COMMAND)?;
            let remote = format!("--remote=punix:{}", file(&format!("{name}.sock")));
            let unixctl = format!("--unixctl={}", file(&format!("{name}.ctl")));
            children.push((name, spawn(None, &dir, "ovsdb-server", &[database, remote, unixctl])?));
        }
        for (name, _) in SCHEMAS {
            appears(&dir.join(format!("{name}.sock")))?;
        }
        control(&dir, "ovs-vsctl", "conf.sock", &["--no-wait", "init"])?;
        control(&dir, "ovn-nbctl", "nb.sock", &["init"])?;
        control(&dir, "ovn-sbctl", "sb.sock", &["init"])?;
        let southbound = format!("unix:{}", file("sb.sock"));
        let remote = format!("external-ids:ovn-remote=\"{southbound}\"");
        let settings = [
            "--no-wait",
            "set",
            "open",
            ".",
            "external-ids:system-id=node",
            &remote,
            "external-ids:ovn-encap-type=geneve",
            "external-ids:ovn-encap-ip=127.0.0.1",
            "external-ids:ovn-bridge-datapath-type=netdev",
        ];
        control(&dir, "ovs-vsctl", "conf.sock", &settings)?;
        let northbound = format!("--ovnnb-db=unix:{}", file("nb.sock"));
        let args = [northbound, format!("--ovnsb-db={southbound}")];
        children.push(("northd", spawn(None, &dir, "ovn-northd", &args)?));
        for (name, program) in [("switch", "ovs-vswitchd"), ("controller", "ovn-controller")] {
            let args = [format!("unix:{}", file("conf.sock"))];
            children.push((name, spawn(Some(&node), &dir, program, &args)?));
        }
        appears(&dir.join("br-int.mgmt"))?;
        let north = Client::connect(&dir.join("nb.sock"), NORTHBOUND, "NB_Global", &["hv_cfg"])?;
        let columns = ["name", "external_ids"];
        let switch = Client::connect(&dir.join("conf.sock"), "Open_vSwitch", "Interface", &columns)?;
        let guest = |of: usize, no: u16| {
            let (name, mac) = (place.name(["client", "server"][of]), document::mac(no).to_string());
            let nic = Nic {
                namespace: &name,
                mac: Some(&mac),
                address: ADDRESSES[of],
                prefix: PREFIX,
                router: Some(ROUTERS[of]),
                offloads: false,
                of_agent: false,
            };
            Guest::plug(&node, &document::device(no), &nic)
        };
        let guests = [guest(0, CLIENT)?, guest(1, SERVER)?];
        let mut ovn = Self {
            children,
            north,
            switch,
            guests,
            node,
            dir,
            groups,
            ports: 0,
            base: 0,
            rule: None,
            next: false,
            asked: 0,
            _place: place,
        };
        ovn.build()?;
        ovn.base = ovn.count()?;
        while ovn.ports < ports {
            ovn.add(CHUNK.min(ports - ovn.ports))?;
        }
        ovn.settle(ports + 2)?;
        Ok(ovn)
    }

    /// The topology: two switches, a router, the groups, the two ports that are measured.
    fn build(&mut self) -> anyhow::Result<()> {
        let nb = |text: String| {
            let args: Vec<&str> = text.split(' ').collect();
            control(&self.dir, "ovn-nbctl", "nb.sock", &args)
        };
        nb("lr-add lr0".to_owned())?;
        for (n, router) in ROUTERS.iter().enumerate() {
            nb(format!(
                "ls-add ls{n} -- lrp-add lr0 lrp{n} 0a:ff:00:00:00:0{n} {router}/{PREFIX} -- lsp-add ls{n} up{n} \
                 -- lsp-set-type up{n} router -- lsp-set-addresses up{n} router -- lsp-set-options up{n} router-port=lrp{n}"
            ))?;
        }
        nb("pg-add pg_all -- pg-add pg_drop".to_owned())?;
        for (direction, priority, expression, action) in [
            ("to-lport", "1001", "outport == @pg_drop && ip", "drop"),
            ("from-lport", "1001", "inport == @pg_drop && ip", "drop"),
            ("from-lport", "1002", "inport == @pg_drop && ip4", "allow-related"),
        ] {
            let args = ["acl-add", "pg_drop", direction, priority, expression, action];
            control(&self.dir, "ovn-nbctl", "nb.sock", &args)?;
        }
        self.north.transact(acls("pg_all", 5))?;
        let mut operations = self.port_of(CLIENT, ADDRESSES[0], "ls0");
        operations.extend(self.port_of(SERVER, ADDRESSES[1], "ls1"));
        self.north.transact(operations)?;
        for no in [CLIENT, SERVER] {
            let name = document::device(no);
            self.switch.transact(new_port("br-int", &name, &[("iface-id", &name)]))?;
        }
        self.settle(2)
    }

    /// Operations that make a logical port and put it into its groups.
    fn port_of(&self, no: u16, address: std::net::Ipv4Addr, on: &str) -> Vec<Value> {
        let (name, uuid) = (document::device(no), format!("l{no}"));
        let known_by = format!("{} {address}", document::mac(no));
        let named = json!(["named-uuid", uuid]);
        let into = |table: &str, group: &str| {
            json!({"op": "mutate", "table": table, "where": [["name", "==", group]],
                "mutations": [["ports", "insert", named]]})
        };
        let mut operations = vec![
            json!({"op": "insert", "table": "Logical_Switch_Port", "uuid-name": uuid,
                "row": {"name": name, "addresses": known_by, "port_security": known_by}}),
            into("Logical_Switch", on),
            into("Port_Group", "pg_drop"),
        ];
        // Those that are measured are in the shared group in any case.
        if self.groups == Groups::Shared || no <= SERVER {
            operations.push(into("Port_Group", "pg_all"));
        } else {
            let group = format!("pg_{no}");
            operations.push(json!({"op": "insert", "table": "Port_Group",
                "row": {"name": group, "ports": named}}));
            operations.extend(acls(&group, 0));
        }
        operations
    }

    /// Adds so many ports with their devices.
    fn add(&mut self, count: usize) -> anyhow::Result<()> {
        let (mut names, mut logical, mut physical) = (Vec::new(), Vec::new(), Vec::new());
        for n in self.ports..self.ports + count {
            let n = u16::try_from(n)?;
            let no = SERVER + 1 + n;
            let name = document::device(no);
            logical.extend(self.port_of(no, document::further(n), "ls0"));
            physical.extend(new_port("br-int", &name, &[("iface-id", &name)]));
            names.push(name);
        }
        place::taps(&self.node, &names)?;
        self.switch.transact(physical)?;
        self.north.transact(logical)?;
        self.ports += count;
        Ok(())
    }

    /// Waits until so many ports are in order, and until nothing is left to be done.
    fn settle(&mut self, ports: usize) -> anyhow::Result<()> {
        self.switch.holds("Interface", PATIENCE, |rows| {
            rows.values().filter(|row| is_installed(row)).count() >= ports
        })?;
        self.ask()?;
        self.confirmed().map(drop)
    }

    /// Asks the node to say when it has done everything.
    fn ask(&mut self) -> anyhow::Result<()> {
        let bump = self.bump();
        self.north.transact(vec![bump]).map(drop)
    }
    fn bump(&mut self) -> Value {
        self.asked += 1;
        json!({"op": "update", "table": "NB_Global", "where": [], "row": {"nb_cfg": self.asked}})
    }

    fn count(&self) -> anyhow::Result<usize> {
        let mut command = Command::new("ovs-ofctl");
        let bridge = format!("unix:{}", self.dir.join("br-int.mgmt").display());
        let text = process::check(command.args(["dump-aggregate", &bridge]), COMMAND)?;
        let count = text.split_whitespace().find_map(|word| word.strip_prefix("flow_count="));
        Ok(count.context("a count of flows")?.parse()?)
    }
    fn child(&mut self, name: &str) -> anyhow::Result<&mut Child> {
        let found = self.children.iter_mut().find(|(n, _)| *n == name);
        Ok(&mut found.with_context(|| name.to_owned())?.1)
    }
    /// Kills one of its programs, and starts it again.
    fn again(&mut self, name: &str, program: &str) -> anyhow::Result<()> {
        let child = self.child(name)?;
        child.kill()?;
        child.wait()?;
        let args = [format!("unix:{}", self.dir.join("conf.sock").display())];
        *self.child(name)? = spawn(Some(&self.node.clone()), &self.dir.clone(), program, &args)?;
        Ok(())
    }
}

/// Whether the controller has said that the flows of an interface are in.
fn is_installed(row: &Value) -> bool {
    let pairs = row["external_ids"][1].as_array().into_iter().flatten();
    pairs.into_iter().any(|pair| pair[0] == "ovn-installed" && pair[1] == "true")
}

impl Side for Ovn {
    fn guests(&self) -> [&Guest; 2] {
        self.guests.each_ref()
    }
    fn prepare(&mut self, opened: bool) -> anyhow::Result<()> {
        ensure!(self.rule.is_some() != opened, "nothing to change");
        self.next = opened;
        Ok(())
    }
    fn change(&mut self, confirm: bool) -> anyhow::Result<()> {
        let mut operations: Vec<Value> = if self.next {
            let peer = format!("ip4.src == 10.0.0.0/24 && udp.dst == {OPENED}");
            new_acl("pg_all", "opened", &format!("outport == @pg_all && ip4 && {peer}")).into()
        } else {
            let rule = self.rule.take().context("the rule is there")?;
            vec![json!({"op": "mutate", "table": "Port_Group", "where": [["name", "==", "pg_all"]],
                "mutations": [["acls", "delete", ["set", [["uuid", rule]]]]]})]
        };
        if confirm {
            operations.push(self.bump());
        }
        let results = self.north.transact(operations)?;
        if self.next {
            self.rule = Some(results[0]["uuid"][1].as_str().context("the rule's UUID")?.to_owned());
        }
        Ok(())
    }
    fn confirmed(&mut self) -> anyhow::Result<Instant> {
        let asked = self.asked;
        self.north.holds("NB_Global", PATIENCE, |rows| {
            rows.values().any(|row| row["hv_cfg"].as_u64() >= Some(asked))
        })?;
        Ok(Instant::now())
    }
    fn plug(&mut self) -> anyhow::Result<f64> {
        let name = document::device(SERVER + 1 + u16::try_from(self.ports)?);
        let start = Instant::now();
        self.add(1)?;
        self.switch.holds("Interface", PATIENCE, |rows| {
            rows.values().any(|row| row["name"] == name.as_str() && is_installed(row))
        })?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
    fn restart(&mut self) -> anyhow::Result<f64> {
        let start = Instant::now();
        self.again("controller", "ovn-controller")?;
        self.ask()?;
        Ok(self.confirmed()?.duration_since(start).as_secs_f64())
    }
    fn kill_switch(&mut self) -> anyhow::Result<()> {
        self.again("switch", "ovs-vswitchd")
    }
    fn resident(&self) -> anyhow::Result<f64> {
        let control = self.children.iter().filter(|(name, _)| !["conf", "switch"].contains(name));
        control.map(|(_, child)| place::resident(child.id().cast_signed())).sum()
    }
    fn flows(&self) -> anyhow::Result<f64> {
        Ok(f64::from(u32::try_from(self.count()?)?))
    }
}

impl Ovn {
    /// Flows that were there before any further port.
    pub fn base(&self) -> anyhow::Result<f64> {
        Ok(f64::from(u32::try_from(self.base)?))
    }
}
