//! The few things we ask of Open vSwitch's database (RFC 7047): one bridge, its ports, two settings.
//!
//! Assumes that nobody else changes our bridge. Promises that every `ensure_…` may be repeated, that a change is one
//! transaction, and that it returns when ovs-vswitchd has done what the transaction says.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use gon_types::MacAddr;
use serde_json::{Value, json};

use super::rpc::{Rpc, RpcError};
use super::{Datapath, OvsError};

/// How long one exchange with the database may take.
const CALL: Duration = Duration::from_secs(10);
/// How long ovs-vswitchd may take to follow the database.
const FOLLOW: Duration = Duration::from_secs(30);
const DATABASE: &str = "Open_vSwitch";

/// What kind of port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// A device that the switch makes and the host sees.
    Internal,
    /// A device that is there (a tap, a veth).
    System,
    /// The end of all Geneve tunnels: key and far end are the flows' business.
    Tunnel {
        /// This node's address on the underlay: packets to others are not taken.
        local: Ipv4Addr,
        /// UDP port.
        udp: u16,
    },
}

impl PortKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::System => "",
            Self::Tunnel { .. } => "geneve",
        }
    }
    /// Options of the interface. The outer "don't fragment" bit stays set, as is the default: a packet too large for the
    /// underlay is dropped there and never arrives in pieces, which receivers would have to put together.
    fn options(self) -> BTreeMap<String, String> {
        let Self::Tunnel { local, udp } = self else { return BTreeMap::new() };
        [("remote_ip", "flow".to_owned()), ("key", "flow".to_owned())]
            .into_iter()
            .chain([("local_ip", local.to_string()), ("dst_port", udp.to_string())])
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}

/// A port as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// Its device's name.
    pub name: String,
    /// Its OpenFlow number: exactly this one.
    pub ofport: u32,
    /// Its kind.
    pub kind: PortKind,
    /// MTU to give an internal device.
    pub mtu: Option<u16>,
    /// Ethernet address to give an internal device.
    pub mac: Option<MacAddr>,
}

/// A port as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    /// Its device's name.
    pub name: String,
    /// Its OpenFlow number; `None` while it has none.
    pub ofport: Option<u32>,
    /// Why it has none.
    pub error: Option<String>,
    /// Its device's Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its options; only tunnels of ours have any.
    pub options: BTreeMap<String, String>,
}

impl PortStatus {
    /// The columns of the table `Interface` that say it.
    const COLUMNS: [&'static str; 6] = ["_uuid", "name", "ofport", "error", "mac_in_use", "options"];

    fn of_row(row: &Value) -> Self {
        let first = |column: &str| members(&row[column]).first().copied().unwrap_or(&Value::Null).clone();
        Self {
            name: row["name"].as_str().unwrap_or_default().to_owned(),
            ofport: first("ofport").as_u64().and_then(|n| n.try_into().ok()),
            error: first("error").as_str().map(str::to_owned),
            mac: first("mac_in_use").as_str().and_then(|m| m.parse().ok()),
            options: map_of(&row["options"]),
        }
    }
}

/// A connection to the database.
#[derive(Debug)]
pub struct Ovsdb {
    rpc: Rpc,
}

impl Ovsdb {
    /// A client of the database at `socket`.
    #[must_use]
    pub fn new(socket: &std::path::Path) -> Self {
        Self { rpc: Rpc::new(socket) }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), RpcError> {
        self.rpc.call("echo", json!([]), Duration::from_secs(2)).await.map(drop)
    }

    /// One transaction; the results of its operations.
    async fn transact(&self, operations: Vec<Value>) -> Result<Vec<Value>, OvsError> {
        let mut params = vec![json!(DATABASE)];
        params.extend(operations);
        let answer = self.rpc.call("transact", Value::Array(params), CALL).await?;
        let Value::Array(results) = answer else {
            return Err(OvsError::Database(format!("unexpected answer {answer}")));
        };
        if let Some(failed) = results.iter().find(|r| r.get("error").is_some_and(|e| !e.is_null())) {
            return Err(OvsError::Database(format!(
                "{}: {}",
                failed["error"].as_str().unwrap_or("error"),
                failed["details"].as_str().unwrap_or_default()
            )));
        }
        Ok(results)
    }

    async fn select(&self, table: &str, condition: Value, columns: &[&str]) -> Result<Vec<Value>, OvsError> {
        let operation = json!({"op": "select", "table": table, "where": condition, "columns": columns});
        let mut results = self.transact(vec![operation]).await?;
        match results.first_mut().map(|r| r["rows"].take()) {
            Some(Value::Array(rows)) => Ok(rows),
            _ => Ok(vec![]),
        }
    }

    /// The one row of the root table; made if the database is new.
    async fn root(&self) -> Result<(String, BTreeMap<String, String>), OvsError> {
        let columns = ["_uuid", "other_config"];
        let mut rows = self.select(DATABASE, json!([]), &columns).await?;
        if rows.is_empty() {
            self.transact(vec![json!({"op": "insert", "table": DATABASE, "row": {}})]).await?;
            rows = self.select(DATABASE, json!([]), &columns).await?;
        }
        let row = rows.first().ok_or_else(|| OvsError::Database("no root row".to_owned()))?;
        Ok((uuid_of(&row["_uuid"])?, map_of(&row["other_config"])))
    }

    /// Makes the one row without which ovs-vswitchd does nothing.
    pub async fn initialize(&self) -> Result<(), OvsError> {
        self.root().await.map(drop)
    }

    /// Sets or removes keys of the global `other_config`, and returns when ovs-vswitchd has seen them.
    pub async fn configure(&self, settings: &[(&str, Option<&str>)]) -> Result<(), OvsError> {
        let (root, mut config) = self.root().await?;
        let before = config.clone();
        for (key, value) in settings {
            match value {
                Some(value) => config.insert((*key).to_owned(), (*value).to_owned()),
                None => config.remove(*key),
            };
        }
        if config == before {
            return Ok(());
        }
        let update = json!({"op": "update", "table": DATABASE, "where": [["_uuid", "==", ["uuid", root]]],
            "row": {"other_config": map(&config)}});
        self.change(&root, vec![update]).await
    }

    /// A setting of the global `other_config`.
    pub async fn setting(&self, key: &str) -> Result<Option<String>, OvsError> {
        Ok(self.root().await?.1.remove(key))
    }

    /// Runs a transaction and waits until ovs-vswitchd has followed.
    async fn change(&self, root: &str, operations: Vec<Value>) -> Result<(), OvsError> {
        self.change_and_look(root, operations, None).await.map(drop)
    }

    /// The same; then the rows that `look`, a `select`, finds.
    async fn change_and_look(
        &self,
        root: &str,
        mut operations: Vec<Value>,
        look: Option<Value>,
    ) -> Result<Vec<Value>, OvsError> {
        let us = json!([["_uuid", "==", ["uuid", root]]]);
        operations.push(
            json!({"op": "mutate", "table": DATABASE, "where": us, "mutations": [["next_cfg", "+=", 1]]}),
        );
        operations.push(
            json!({"op": "select", "table": DATABASE, "where": us, "columns": ["next_cfg", "cur_cfg"]}),
        );
        let results = self.transact(operations).await?;
        let row = results.last().map_or(&Value::Null, |last| &last["rows"][0]);
        let wanted = row["next_cfg"].as_i64().unwrap_or_default();
        let mut seen = row["cur_cfg"].as_i64().unwrap_or_default();
        let mut found = Vec::new();
        let until = Instant::now() + FOLLOW;
        while seen < wanted {
            let left = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(5));
            if left.is_zero() {
                return Err(OvsError::Behind(FOLLOW));
            }
            // The database itself waits until the column is no longer what we saw, then shows it.
            let wait = json!({"op": "wait", "table": DATABASE, "where": us, "columns": ["cur_cfg"],
                "until": "!=", "rows": [{"cur_cfg": seen}], "timeout": left.as_millis() as u64});
            let now = json!({"op": "select", "table": DATABASE, "where": us, "columns": ["cur_cfg"]});
            match self.transact([wait, now].into_iter().chain(look.clone()).collect()).await {
                Ok(mut results) => {
                    seen = results[1]["rows"][0]["cur_cfg"].as_i64().unwrap_or(seen);
                    if let Some(Value::Array(rows)) = results.get_mut(2).map(|r| r["rows"].take()) {
                        found = rows;
                    }
                }
                Err(OvsError::Database(text)) if text.starts_with("timed out") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The datapath type of a bridge; `None` if there is no such bridge.
    pub async fn bridge(&self, name: &str) -> Result<Option<Datapath>, OvsError> {
        let rows = self.select("Bridge", json!([["name", "==", name]]), &["datapath_type"]).await?;
        Ok(rows.first().map(|row| match row["datapath_type"].as_str() {
            Some("netdev") => Datapath::Netdev,
            _ => Datapath::System,
        }))
    }

    /// Makes the bridge be there: closed without flows, OpenFlow 1.4 spoken, never learning, never flooding.
    pub async fn ensure_bridge(&self, name: &str, datapath: Datapath) -> Result<(), OvsError> {
        let (root, _) = self.root().await?;
        let row = json!({
            "name": name,
            "datapath_type": datapath.as_str(),
            "fail_mode": "secure",
            "protocols": set(["OpenFlow10", "OpenFlow13", "OpenFlow14", "OpenFlow15"].map(Value::from)),
            "other_config": map(&BTreeMap::from([("disable-in-band".to_owned(), "true".to_owned())])),
            "mcast_snooping_enable": false,
            "stp_enable": false,
            "rstp_enable": false,
        });
        let columns: Vec<&str> =
            row.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
        let found = self.select("Bridge", json!([["name", "==", name]]), &columns).await?;
        match found.first() {
            Some(is) if columns.iter().all(|c| same(&is[c], &row[c])) => Ok(()),
            Some(_) => {
                let update =
                    json!({"op": "update", "table": "Bridge", "where": [["name", "==", name]], "row": row});
                self.change(&root, vec![update]).await
            }
            None => {
                let mut row = row;
                row["ports"] = json!(["named-uuid", "port"]);
                self.insert_bridge(&root, name, row).await
            }
        }
    }

    /// Makes a bridge be there that joins a device of the host with the host itself, as a plain switch does; `mac` is the
    /// host's address there. For the userspace datapath, whose tunnels begin and end on a bridge of its own.
    pub async fn ensure_uplink(&self, name: &str, device: &str, mac: MacAddr) -> Result<(), OvsError> {
        let (root, _) = self.root().await?;
        let row = json!({
            "name": name,
            "datapath_type": Datapath::Netdev.as_str(),
            "fail_mode": "standalone",
            "other_config": map(&BTreeMap::from([
                ("disable-in-band".to_owned(), "true".to_owned()),
                ("hwaddr".to_owned(), mac.to_string()),
            ])),
        });
        let columns = ["datapath_type", "fail_mode", "other_config"];
        let found = self.select("Bridge", json!([["name", "==", name]]), &columns).await?;
        match found.first() {
            Some(is) if columns.iter().all(|c| same(&is[c], &row[c])) => {}
            Some(_) => {
                let update =
                    json!({"op": "update", "table": "Bridge", "where": [["name", "==", name]], "row": row});
                self.change(&root, vec![update]).await?;
            }
            None => {
                let mut row = row;
                row["ports"] = json!(["named-uuid", "port"]);
                self.insert_bridge(&root, name, row).await?;
            }
        }
        let ports = self.ports(name).await?;
        let others: Vec<&str> = ports.iter().map(|p| p.name.as_str()).filter(|n| *n != device).collect();
        if !others.is_empty() {
            self.delete_ports(name, &others).await?;
        }
        let uplink =
            PortSpec { name: device.to_owned(), ofport: 1, kind: PortKind::System, mtu: None, mac: None };
        let status = self.ensure_ports(name, &[uplink]).await?;
        match status.into_iter().find_map(|s| s.error) {
            Some(error) => Err(OvsError::Database(format!("{device}: {error}"))),
            None => Ok(()),
        }
    }

    async fn insert_bridge(&self, root: &str, name: &str, row: Value) -> Result<(), OvsError> {
        let operations = vec![
            json!({"op": "insert", "table": "Interface", "uuid-name": "interface",
                "row": {"name": name, "type": "internal"}}),
            json!({"op": "insert", "table": "Port", "uuid-name": "port",
                "row": {"name": name, "interfaces": ["named-uuid", "interface"]}}),
            json!({"op": "insert", "table": "Bridge", "uuid-name": "bridge", "row": row}),
            json!({"op": "mutate", "table": DATABASE, "where": [["_uuid", "==", ["uuid", root]]],
                "mutations": [["bridges", "insert", ["set", [["named-uuid", "bridge"]]]]]}),
        ];
        self.change(root, operations).await
    }

    /// Removes the bridge with its ports; it is no error if there is none.
    pub async fn delete_bridge(&self, name: &str) -> Result<(), OvsError> {
        let (root, _) = self.root().await?;
        let rows = self.select("Bridge", json!([["name", "==", name]]), &["_uuid"]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let bridge = uuid_of(&row["_uuid"])?;
        let remove = json!({"op": "mutate", "table": DATABASE, "where": [["_uuid", "==", ["uuid", root]]],
            "mutations": [["bridges", "delete", ["set", [["uuid", bridge]]]]]});
        self.change(&root, vec![remove]).await
    }

    /// Makes these ports be on the bridge; others are left alone. Says how each is. A port that has another number than
    /// asked for is replaced.
    pub async fn ensure_ports(&self, bridge: &str, wanted: &[PortSpec]) -> Result<Vec<PortStatus>, OvsError> {
        let here = self.ports(bridge).await?;
        self.ensure_ports_beside(bridge, here, wanted).await
    }

    /// The same, where [`Ovsdb::ports`] has just said what is `here`.
    pub async fn ensure_ports_beside(
        &self,
        bridge: &str,
        here: Vec<PortStatus>,
        wanted: &[PortSpec],
    ) -> Result<Vec<PortStatus>, OvsError> {
        let mut here: BTreeMap<String, PortStatus> = here.into_iter().map(|p| (p.name.clone(), p)).collect();
        let right = |want: &PortSpec| {
            let is = here.get(&want.name);
            is.is_some_and(|is| is.ofport == Some(want.ofport) && is.options == want.kind.options())
        };
        let wrong: Vec<&str> = wanted
            .iter()
            .filter(|w| here.contains_key(&w.name) && !right(w))
            .map(|w| w.name.as_str())
            .collect();
        if !wrong.is_empty() {
            self.delete_ports(bridge, &wrong).await?;
        }
        let missing: Vec<&PortSpec> = wanted.iter().filter(|w| !right(w)).collect();
        if !missing.is_empty() {
            let (root, _) = self.root().await?;
            let mut operations = Vec::new();
            let mut names = Vec::new();
            for (n, want) in missing.iter().enumerate() {
                let mut row = json!({
                    "name": want.name,
                    "type": want.kind.name(),
                    "ofport_request": want.ofport,
                    "options": map(&want.kind.options()),
                });
                if let Some(mtu) = want.mtu {
                    row["mtu_request"] = json!(mtu);
                }
                if let Some(mac) = want.mac {
                    row["mac"] = json!(mac.to_string());
                }
                operations.push(
                    json!({"op": "insert", "table": "Interface", "uuid-name": format!("i{n}"), "row": row}),
                );
                operations.push(json!({"op": "insert", "table": "Port", "uuid-name": format!("p{n}"),
                    "row": {"name": want.name, "interfaces": ["named-uuid", format!("i{n}")]}}));
                names.push(json!(["named-uuid", format!("p{n}")]));
            }
            operations.push(json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
                "mutations": [["ports", "insert", ["set", names]]]}));
            // One is looked for by its name; many are found among all.
            let which = match missing[..] {
                [one] => json!([["name", "==", one.name]]),
                _ => json!([]),
            };
            let look = json!({"op": "select", "table": "Interface", "where": which,
                "columns": PortStatus::COLUMNS});
            let now = self.change_and_look(&root, operations, Some(look)).await?;
            here.extend(now.iter().map(PortStatus::of_row).map(|p| (p.name.clone(), p)));
        }
        Ok(wanted
            .iter()
            .map(|want| {
                let mut is = here.remove(&want.name).unwrap_or_else(|| PortStatus {
                    name: want.name.clone(),
                    ofport: None,
                    error: Some("it is not on the bridge".to_owned()),
                    mac: None,
                    options: BTreeMap::new(),
                });
                if is.error.is_none() && is.ofport != Some(want.ofport) {
                    is.error = Some(match is.ofport {
                        Some(other) => format!("it has number {other}, not {}", want.ofport),
                        None => "it has no number".to_owned(),
                    });
                }
                is
            })
            .collect())
    }

    /// Takes ports off the bridge; those that are not there are no error.
    pub async fn delete_ports(&self, bridge: &str, names: &[&str]) -> Result<(), OvsError> {
        let (root, _) = self.root().await?;
        let mut uuids = Vec::new();
        for row in self.select("Port", json!([]), &["_uuid", "name"]).await? {
            if row["name"].as_str().is_some_and(|name| names.contains(&name)) {
                uuids.push(json!(["uuid", uuid_of(&row["_uuid"])?]));
            }
        }
        if uuids.is_empty() {
            return Ok(());
        }
        let remove = json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
            "mutations": [["ports", "delete", ["set", uuids]]]});
        self.change(&root, vec![remove]).await
    }

    /// The ports of the bridge, its own local one left out.
    pub async fn ports(&self, bridge: &str) -> Result<Vec<PortStatus>, OvsError> {
        let operations = vec![
            json!({"op": "select", "table": "Bridge", "where": [["name", "==", bridge]], "columns": ["ports"]}),
            json!({"op": "select", "table": "Port", "where": [["name", "!=", bridge]],
                "columns": ["_uuid", "interfaces"]}),
            json!({"op": "select", "table": "Interface", "where": [],
                "columns": PortStatus::COLUMNS}),
        ];
        let results = self.transact(operations).await?;
        let rows =
            |n: usize| results.get(n).and_then(|r| r["rows"].as_array()).map_or(&[][..], Vec::as_slice);
        let on_bridge: std::collections::HashSet<&str> =
            rows(0).iter().flat_map(|row| members(&row["ports"])).filter_map(|u| u[1].as_str()).collect();
        let interfaces: std::collections::HashSet<&str> = rows(1)
            .iter()
            .filter(|row| row["_uuid"][1].as_str().is_some_and(|u| on_bridge.contains(u)))
            .flat_map(|row| members(&row["interfaces"]))
            .filter_map(|u| u[1].as_str())
            .collect();
        Ok(rows(2)
            .iter()
            .filter(|row| row["_uuid"][1].as_str().is_some_and(|u| interfaces.contains(u)))
            .map(PortStatus::of_row)
            .collect())
    }

    /// Those interfaces of these names that are there, on whatever bridge.
    pub async fn interfaces(&self, names: &HashSet<String>) -> Result<Vec<PortStatus>, OvsError> {
        let select = |name: &String| {
            json!({"op": "select", "table": "Interface", "where": [["name", "==", name]],
                "columns": PortStatus::COLUMNS})
        };
        let results = self.transact(names.iter().map(select).collect()).await?;
        let rows = results.iter().filter_map(|result| result["rows"].as_array()).flatten();
        Ok(rows.map(PortStatus::of_row).collect())
    }

    /// The version of Open vSwitch.
    pub async fn version(&self) -> Result<Option<String>, OvsError> {
        let rows = self.select(DATABASE, json!([]), &["ovs_version"]).await?;
        Ok(rows.first().and_then(|row| members(&row["ovs_version"]).first()?.as_str().map(str::to_owned)))
    }
}

fn uuid_of(value: &Value) -> Result<String, OvsError> {
    value[1].as_str().map(str::to_owned).ok_or_else(|| OvsError::Database(format!("{value} is no uuid")))
}

/// A set's members; a set of one is written as the member itself (RFC 7047 §5.1).
fn members(value: &Value) -> Vec<&Value> {
    match value.as_array().map(Vec::as_slice) {
        Some([Value::String(tag), Value::Array(list)]) if tag == "set" => list.iter().collect(),
        _ => vec![value],
    }
}

fn set(values: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", values.into_iter().collect::<Vec<_>>()])
}

fn map(entries: &BTreeMap<String, String>) -> Value {
    json!(["map", entries.iter().map(|(k, v)| json!([k, v])).collect::<Vec<_>>()])
}

fn map_of(value: &Value) -> BTreeMap<String, String> {
    let pairs = value[1].as_array().map_or(&[][..], Vec::as_slice);
    pairs.iter().filter_map(|p| Some((p[0].as_str()?.to_owned(), p[1].as_str()?.to_owned()))).collect()
}

/// Whether a column already has the value: sets have no order.
fn same(is: &Value, wanted: &Value) -> bool {
    let sorted = |value: &Value| {
        let mut list: Vec<String> = members(value).iter().map(ToString::to_string).collect();
        list.sort();
        list
    };
    sorted(is) == sorted(wanted)
}
