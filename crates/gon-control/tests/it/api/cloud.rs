//! An API with an instance manager beside it and nodes that say what the test lets them say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gon_bus::MemoryBus;
use gon_control::compute::{ComputeSettings, InstanceManager};
use gon_control::documents::NodeError;
use gon_control::relay::Nudge;
use gon_control::status::Metrics;
use gon_proto::{
    ComputeReport, ImageKind, ImageReport, InstanceReport, NodeAnswer, NodeCompute, NodeReport,
    ObservedInstance,
};
use gon_types::DocumentVersion;
use gon_types::id::NodeId;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Api;
use super::harness::id;

pub struct Cloud {
    pub api: Api,
    pub manager: InstanceManager,
}

impl Cloud {
    /// With node `n1` and a subnet.
    pub async fn new() -> Self {
        let api = Api::furnished().await;
        let manager = manager(&api);
        manager.take_over("test").await.unwrap();
        Self { api, manager }
    }

    /// The subnet that everything is in.
    pub async fn subnet(&self) -> String {
        let vpc = self.api.vpc("10.0.0.0/16").await;
        id(&self.api.subnet(id(&vpc), "10.0.1.0/24").await).to_owned()
    }

    /// A node that looks like `n1`.
    pub async fn node(&self, name: &str) -> NodeAnswer {
        self.manager.ingest_node(node_report(name)).await.unwrap()
    }

    /// One that is placed, with the state it has been said to have.
    pub async fn instance(&self, subnet: &str, more: Value) -> Uuid {
        let instance = self.api.launch(subnet, more).await.ok();
        self.manager.place(&BTreeSet::new()).await.unwrap();
        instance["uuid"].as_str().unwrap().parse().unwrap()
    }

    /// Its node says this of it, as of its current generation and placement.
    pub async fn say(&self, instance: Uuid, observed: ObservedInstance) {
        self.say_more(instance, observed, 0, None).await.unwrap();
    }

    pub async fn say_more(
        &self,
        instance: Uuid,
        observed: ObservedInstance,
        reboot_seq: u64,
        reason: Option<&str>,
    ) -> Result<(), NodeError> {
        let rows = gon_store::admin::json(
            &self.api.database.store,
            "select jsonb_build_array(id, node_id, generation, placement_epoch) from instances",
        )
        .await
        .unwrap();
        let row = rows.iter().find(|row| row[0] == json!(instance)).expect("no such instance");
        let node: Uuid = row[1].as_str().expect("it is on no node").parse().unwrap();
        let said = InstanceReport {
            id: gon_types::id::InstanceId::from_uuid(instance),
            generation: row[2].as_u64().unwrap(),
            placement_epoch: row[3].as_u64().unwrap(),
            observed,
            reboot_seq,
            reason: reason.map(ToOwned::to_owned),
        };
        let report = ComputeReport {
            format: gon_proto::FORMAT,
            node: NodeId::from_uuid(node),
            accepted: DocumentVersion::default(),
            instances: vec![said],
            node_epoch: None,
        };
        self.manager.ingest(NodeId::from_uuid(node), report).await
    }

    pub async fn get(&self, instance: Uuid) -> Value {
        self.api.get(&format!("/instances/{instance}")).await.ok()
    }

    pub async fn operation(&self, id: &str) -> Value {
        self.api.get(&format!("/operations/{id}")).await.ok()
    }

    /// The id of a node of this name that was not removed.
    pub async fn node_id(&self, name: &str) -> Uuid {
        gon_store::nodes::id_by_name(&self.api.database.store, name).await.unwrap().unwrap()
    }

    /// What a node is told.
    pub async fn document(&self, node: Uuid) -> NodeCompute {
        let node = NodeId::from_uuid(node);
        self.manager.refresh(node).await.unwrap();
        serde_json::from_slice(&self.manager.documents().latest(node).unwrap().body).unwrap()
    }
}

pub fn manager(api: &Api) -> InstanceManager {
    InstanceManager::new(
        api.database.store.clone(),
        Arc::new(MemoryBus::new()),
        Nudge::new(),
        ComputeSettings { placement_patience: Duration::from_secs(3600), ..ComputeSettings::default() },
        Arc::new(Metrics::default()),
        CancellationToken::new(),
    )
}

/// As the harness furnishes `n1`.
pub fn node_report(name: &str) -> NodeReport {
    let image = |min_memory_mib, disk_gib| ImageReport {
        digest: "a".repeat(64),
        kind: if disk_gib > 0 { ImageKind::Disk } else { ImageKind::Initramfs },
        min_memory_mib,
        disk_gib,
        description: String::new(),
        architecture: "x86_64".to_owned(),
    };
    NodeReport {
        format: gon_proto::FORMAT,
        name: name.to_owned(),
        availability_zone: "gon-1a".to_owned(),
        vcpus: 64,
        memory_mib: 65536,
        disk_gib: 1000,
        accelerator: "tcg".to_owned(),
        ovs_datapath: "netdev".to_owned(),
        versions: [("gond".to_owned(), "0.1.0".to_owned())].into(),
        images: [("gon-linux".to_owned(), image(128, 0)), ("debian-12".to_owned(), image(512, 2))].into(),
        labels: [("rack".to_owned(), "3".to_owned())].into(),
        address: Some([192, 0, 2, 1].into()),
        boot_id: None,
        node: None,
        epoch: None,
    }
}
