//! VPCs: creating one brings its main route table and default group, deleting it takes them away. Their further blocks.

use gon_api::page::{NoQuery, Page, Wait};
use gon_api::vpcs::{AssociateVpcCidrBlock, CreateVpc, ListVpcs, UpdateVpc, Vpc, VpcCidrBlockAssociation};
use gon_core::vpc::{BlockError, block, may_join};
use gon_store::Change;
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::reference::Ref;
use gon_store::vpcs::{self, Filter, NewIds, VpcRow};
use gon_types::id::{NetworkAclId, RouteTableId, SecurityGroupId, SubnetId, VpcCidrBlockId, VpcId};
use gon_types::net::parse_cidr;
use ipnet::Ipv4Net;
use uuid::Uuid;

use super::cx::{Pause, show_applied};
use super::error::{Refusal, Result};
use super::{Cx, parse};
use crate::api::{Json, One, Two};

type Kind = gon_types::id::Vpc;
type BlockKind = gon_types::id::VpcCidrBlock;

fn show_block(id: Uuid, cidr_block: impl ToString, is_primary: bool) -> VpcCidrBlockAssociation {
    VpcCidrBlockAssociation {
        id: VpcCidrBlockId::from_uuid(id).to_string(),
        cidr_block: cidr_block.to_string(),
        state: "associated".to_owned(),
        is_primary,
    }
}

/// A row as users see it.
pub fn show(row: VpcRow) -> Vpc {
    let blocks = row.block_ids.iter().zip(&row.blocks).enumerate();
    Vpc {
        cidr_block_associations: blocks.map(|(at, (id, block))| show_block(*id, block, at == 0)).collect(),
        is_default: row.is_default,
        id: VpcId::from_uuid(row.id).to_string(),
        uuid: row.id,
        name: row.name,
        cidr_block: row.cidr_block.0.to_string(),
        state: row.state,
        main_route_table_id: RouteTableId::from_uuid(row.main_route_table_id).to_string(),
        default_security_group_id: SecurityGroupId::from_uuid(row.default_security_group_id).to_string(),
        default_network_acl_id: NetworkAclId::from_uuid(row.default_network_acl_id).to_string(),
        generation: row.generation,
        applied: gon_api::Applied { generation: row.generation, nodes: row.nodes, acked: row.acked },
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

fn block_refusal(error: BlockError) -> Refusal {
    let code = match error {
        BlockError::Size => "InvalidVpc.Range",
        BlockError::Malformed | BlockError::Reserved(..) => "InvalidParameterValue",
    };
    Refusal::of_field(code, "cidr_block", error.to_string())
}

/// Creates a VPC. Without an idempotency key it is one statement, which is its own transaction.
pub async fn create(cx: Cx, (): (), wait: Wait, Json(body): Json<CreateVpc>) -> Result<Vpc> {
    // Nothing runs in a new VPC: what was asked for is in force at once.
    cx.until_applied(&wait)?;
    let name = parse::name("name", &body.name)?;
    let cidr = block(&body.cidr_block).map_err(block_refusal)?;
    let ids = NewIds {
        vpc: Uuid::now_v7(),
        main_route_table: Uuid::now_v7(),
        default_group: Uuid::now_v7(),
        rule_in: Uuid::now_v7(),
        rule_out: Uuid::now_v7(),
    };
    let shown = |created_at| Vpc {
        id: VpcId::from_uuid(ids.vpc).to_string(),
        uuid: ids.vpc,
        name: name.clone(),
        cidr_block: cidr.to_string(),
        // The first block comes with the VPC, and under its number; so does the default network ACL.
        cidr_block_associations: vec![show_block(ids.vpc, cidr, true)],
        is_default: false,
        state: "available".to_owned(),
        main_route_table_id: RouteTableId::from_uuid(ids.main_route_table).to_string(),
        default_security_group_id: SecurityGroupId::from_uuid(ids.default_group).to_string(),
        default_network_acl_id: NetworkAclId::from_uuid(ids.vpc).to_string(),
        generation: 1,
        applied: gon_api::Applied { generation: 1, nodes: 0, acked: 0 },
        created_at,
        updated_at: created_at,
    };
    let mut tx = if cx.idempotency.is_some() {
        cx.begin().await?
    } else {
        match cx.app.store.change().await? {
            Change::Hurried(tx) => tx,
            Change::Statement(mut conn) => {
                let (author, name) = (cx.author.clone(), name.clone());
                let created = async move { vpcs::create(&mut conn, &author, &ids, &name, cidr).await };
                let created_at = gon_store::statement(created).await?;
                cx.app.nudge.nudge();
                return Ok(shown(created_at));
            }
        }
    };
    let created_at = vpcs::create(&mut tx, &cx.author, &ids, &name, cidr).await?;
    let vpc = shown(created_at);
    if let Some(answered) = cx.answered(&vpc)? {
        gon_store::idempotency::keep(&mut tx, cx.account(), &answered).await?;
    }
    cx.commit_written(tx).await?;
    Ok(vpc)
}

/// Lists VPCs.
pub async fn list(cx: Cx, (): (), query: ListVpcs, (): ()) -> Result<Page<Vpc>> {
    let window = cx.window("vpcs", query.window())?;
    let cidr_block = query
        .cidr_block
        .as_deref()
        .map(|text| parse_cidr(text).map_err(|e| Refusal::invalid("cidr_block", e.to_string())))
        .transpose()?;
    let filter = Filter { name: query.name, state: query.state, cidr_block };
    let mut conn = cx.conn().await?;
    let rows = vpcs::list(&mut conn, cx.account(), &filter, window).await?;
    Ok(cx.page("vpcs", window, rows, |r| r.id, show))
}

/// Describes a VPC; `wait=applied` waits until its latest change is in force.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<Vpc> {
    let until = cx.until_applied(&wait)?;
    let mut pause = until.map(|until| Pause::new(&cx.app, until.deadline));
    loop {
        let mut conn = cx.conn().await?;
        let vpc = show(Cx::found(vpcs::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?);
        drop(conn);
        match &mut pause {
            Some(pause) if !vpc.applied.is_complete() => {
                if !pause.rest().await {
                    return Ok(vpc);
                }
            }
            _ => return Ok(vpc),
        }
    }
}

/// Renames a VPC.
pub async fn update(cx: Cx, One(id): One<Kind>, _: NoQuery, Json(body): Json<UpdateVpc>) -> Result<Vpc> {
    let name = parse::name("name", &body.name)?;
    let mut tx = cx.begin().await?;
    let head = Cx::found(vpcs::head(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if !vpcs::rename(&mut tx, cx.account(), head.id, &name, cx.unless_changed_since).await? {
        return Err(Refusal::changed());
    }
    let vpc = show(vpcs::get(&mut tx, cx.account(), &head.id.into()).await?);
    let entry = Entry::new("ModifyVpc", head.id).detail(serde_json::json!({ "name": name })).event(
        Watched::Vpc,
        head.id,
        Some("available"),
        Some("available"),
    );
    cx.commit(tx, entry, &vpc).await?;
    Ok(vpc)
}

/// Deletes a VPC, unless something depends on it.
pub async fn delete(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let head = Cx::found(vpcs::head(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if let Err(error) = vpcs::delete(&mut tx, cx.account(), head.id).await {
        if error.constraint().is_none() {
            return Cx::found(Err(error), &id);
        }
        gon_store::rollback(tx).await?;
        let mut conn = cx.conn().await?;
        let blockers = vpcs::blockers(&mut conn, head.id).await?;
        let shown = VpcId::from_uuid(head.id);
        return Err(Refusal::dependency(
            format!("the VPC '{shown}' has dependencies and cannot be deleted"),
            blockers.into_iter().map(|(kind, id)| shown_blocker(&kind, id)).collect(),
        ));
    }
    let entry =
        Entry::new("DeleteVpc", head.id).vpc(head.id).event(Watched::Vpc, head.id, Some("available"), None);
    cx.commit(tx, entry, &()).await
}

/// Gives a VPC another block. Its local routes cover it as soon as it is there.
pub async fn associate_block(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<AssociateVpcCidrBlock>,
) -> Result<Vpc> {
    let until = cx.until_applied(&wait)?;
    let cidr = block(&body.cidr_block).map_err(block_refusal)?;
    let mut tx = cx.begin().await?;
    let head = Cx::found(vpcs::head(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let range = |why: String| Refusal::of_field("InvalidVpc.Range", "cidr_block", why);
    if !may_join(head.cidr_block.0, cidr) {
        return Err(range(format!(
            "{cidr} is restricted for a VPC whose first block is {}",
            head.cidr_block.0
        )));
    }
    let association = Uuid::now_v7();
    vpcs::add_block(&mut tx, cx.account(), &head, association, cidr).await?;
    let detail = serde_json::json!({ "cidr_block": cidr });
    finish_blocks(cx, tx, head.id, ("AssociateVpcCidrBlock", detail), until).await
}

/// Takes a further block from a VPC, unless subnets are in it.
pub async fn disassociate_block(
    cx: Cx,
    Two(id, association): Two<Kind, BlockKind>,
    wait: Wait,
    (): (),
) -> Result<Vpc> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let head = Cx::found(vpcs::head(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let wanted = Ref::from(&association);
    let missing = || {
        Cx::found::<Vpc, _>(Err(gon_store::StoreError::NotFound), &association)
            .map_err(|refusal| refusal.field("association_id"))
    };
    let is_it = |row: &vpcs::BlockRow| {
        wanted.whole == Some(row.id) || wanted.short == Some(VpcCidrBlockId::from_uuid(row.id).short())
    };
    let Some(row) = vpcs::blocks(&mut tx, head.id).await?.into_iter().find(is_it) else {
        return missing();
    };
    if row.slot == 0 {
        return Err(Refusal::conflict(
            "OperationNotPermitted",
            format!("{} is the VPC's first block: it goes with it", row.cidr_block.0),
        )
        .field("association_id"));
    }
    match vpcs::remove_block(&mut tx, cx.account(), head.id, row.id).await {
        Ok(true) => {}
        Ok(false) => return missing(),
        Err(error) if error.constraint() == Some("subnets_block_fkey") => {
            gon_store::rollback(tx).await?;
            return Err(block_in_use(&cx, head.id, row.cidr_block.0).await?);
        }
        Err(error) => return Err(error.into()),
    }
    let detail = serde_json::json!({ "cidr_block": row.cidr_block.0 });
    finish_blocks(cx, tx, head.id, ("DisassociateVpcCidrBlock", detail), until).await
}

async fn block_in_use(cx: &Cx, vpc: Uuid, block: Ipv4Net) -> Result<Refusal> {
    let mut conn = cx.conn().await?;
    let subnets = vpcs::subnets_in_block(&mut conn, vpc, block).await?;
    Ok(Refusal::dependency(
        format!("the block {block} has subnets and cannot be disassociated"),
        subnets.into_iter().map(|id| SubnetId::from_uuid(id).to_string()).collect(),
    ))
}

/// What a change of a VPC's blocks ends with.
async fn finish_blocks(
    cx: Cx,
    mut tx: gon_store::Tx,
    vpc: Uuid,
    (action, detail): (&'static str, serde_json::Value),
    until: Option<super::cx::Until>,
) -> Result<Vpc> {
    let applied = show_applied(vpcs::bump(&mut tx, vpc).await?);
    let mut shown = show(vpcs::get(&mut tx, cx.account(), &vpc.into()).await?);
    let entry = Entry::new(action, vpc).detail(detail).vpc(vpc).event(
        Watched::Vpc,
        vpc,
        Some("available"),
        Some("available"),
    );
    cx.commit(tx, entry, &shown).await?;
    shown.applied = cx.settle(vpc, applied, until).await?;
    Ok(shown)
}

/// The id of something that stands in the way, by the prefix of its kind.
pub fn shown_blocker(prefix: &str, id: Uuid) -> String {
    let hex = id.simple().to_string();
    format!("{prefix}-{}", &hex[hex.len() - gon_types::id::SHORT_LEN..])
}

/// That two things are of the same VPC.
pub fn same_vpc<R: gon_types::Resource>(one: Uuid, other: Uuid, field: &'static str) -> Result<()> {
    if one == other {
        Ok(())
    } else {
        Err(Refusal::invalid(field, format!("the {} is of another VPC", R::NOUN)))
    }
}
