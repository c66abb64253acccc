//! Rows to a node's compute document. Pure; sorted as the rows are.

use gon_proto::{DiskSpec, ImageSpec, InstanceSpec, NicSpec, NodeCompute, Origin, PowerSpec};
use gon_store::compute_document::InstanceRow;
use gon_store::{Result, StoreError};
use gon_types::DocumentVersion;
use gon_types::id::{ImageId, InstanceId, NetworkInterfaceId, NodeId, OperationId};

use super::ComputeSettings;
use crate::network::resolve::device_name;

/// The document, unstamped.
pub fn document(node: NodeId, rows: Vec<InstanceRow>, settings: &ComputeSettings) -> Result<NodeCompute> {
    let instances = rows.into_iter().map(|row| instance(row, settings)).collect::<Result<_>>()?;
    Ok(NodeCompute {
        format: gon_proto::FORMAT,
        node,
        version: DocumentVersion::default(),
        mass_change_ok: false,
        instances,
    })
}

fn instance(row: InstanceRow, settings: &ComputeSettings) -> Result<InstanceSpec> {
    let power = match row.power.as_str() {
        "running" => PowerSpec::Running,
        "stopped" => PowerSpec::Stopped,
        "terminated" => PowerSpec::Terminated,
        other => return Err(StoreError::Db(gon_store::invalid(format!("power {other}")))),
    };
    let nics = row.nics.into_iter().map(|(id, mac)| NicSpec {
        id: NetworkInterfaceId::from_uuid(id),
        device: device_name(id, row.placement_epoch),
        mac: mac.0,
        mtu: settings.mtu,
    });
    Ok(InstanceSpec {
        id: InstanceId::from_uuid(row.id),
        generation: row.generation.unsigned_abs(),
        placement_epoch: row.placement_epoch.unsigned_abs(),
        power,
        force: row.force_stop,
        reboot_seq: row.reboot_seq.unsigned_abs(),
        stop_grace_seconds: settings.stop_grace_seconds,
        // At most 256 by CHECK.
        vcpus: u16::try_from(row.vcpus).unwrap_or(u16::MAX),
        memory_mib: row.memory_mib.unsigned_abs(),
        image: ImageSpec {
            id: ImageId::from_uuid(row.image_id),
            name: row.image_name,
            digest: row.image_digest,
        },
        run_as_uid: row.run_as_uid.unsigned_abs(),
        nics: nics.collect(),
        disks: match row.disk_gib {
            0 => vec![],
            size => vec![DiskSpec { size_gib: size.unsigned_abs() }],
        },
        fence: row.fence.map(i64::unsigned_abs),
        origin: row
            .origin
            .map(|(id, request_id)| Origin { request_id, operation: OperationId::from_uuid(id) }),
    })
}
