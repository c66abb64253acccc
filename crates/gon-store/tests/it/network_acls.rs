//! Network ACLs: what the schema refuses of them, by name; what comes and goes along; what was there before them.

use gon_store::StoreError;
use serde_json::json;

/// Name of the constraint, and a statement it must refuse (on the site of `constraints.sql`).
pub const REFUSED: &[(&str, &str)] = &[
    (
        "network_acls_vpc_fkey",
        "insert into network_acls (id, account_id, vpc_id, name) values (u('f'), u('a2'), u('11'), 'x')",
    ),
    (
        "network_acls_vpc_fkey",
        "insert into network_acls (id, account_id, vpc_id, name) values (u('f'), u('a1'), u('14'), 'x'); update vpcs set deleted_at = now() where id = u('14')",
    ),
    (
        "network_acls_default_key",
        "insert into network_acls (id, account_id, vpc_id, name, is_default) values (u('f'), u('a1'), u('11'), 'x', true)",
    ),
    ("network_acls_default_stays", "update network_acls set is_default = false where vpc_id = u('14')"),
    (
        "network_acls_default_stays",
        "delete from network_acl_entries; update network_acls set deleted_at = now() where vpc_id = u('14')",
    ),
    (
        "network_acls_default_stays",
        "delete from network_acl_entries; delete from network_acls where vpc_id = u('14')",
    ),
    (
        "network_acl_entries_key",
        "insert into network_acl_entries (account_id, vpc_id, network_acl_id, direction, rule_number, action, cidr_block) values (u('a1'), u('11'), acl('11'), 'inbound', 100, 'deny', '10.0.0.0/8')",
    ),
    (
        "network_acl_entries_number_check",
        "insert into network_acl_entries (account_id, vpc_id, network_acl_id, direction, rule_number, action, cidr_block) values (u('a1'), u('11'), acl('11'), 'inbound', 0, 'deny', '10.0.0.0/8')",
    ),
    (
        "network_acl_entries_number_check",
        "insert into network_acl_entries (account_id, vpc_id, network_acl_id, direction, rule_number, action, cidr_block) values (u('a1'), u('11'), acl('11'), 'inbound', 32767, 'deny', '10.0.0.0/8')",
    ),
    ("network_acl_entries_protocol_check", "update network_acl_entries set protocol = 0"),
    ("network_acl_entries_protocol_check", "update network_acl_entries set protocol = 256"),
    ("network_acl_entries_family_check", "update network_acl_entries set cidr_block = '::/0'"),
    ("network_acl_entries_ports_check", "update network_acl_entries set protocol = 6"),
    ("network_acl_entries_ports_check", "update network_acl_entries set port_range = '[80,81)'"),
    (
        "network_acl_entries_ports_check",
        "update network_acl_entries set protocol = 47, port_range = '[80,81)'",
    ),
    (
        "network_acl_entries_port_range_check",
        "update network_acl_entries set protocol = 6, port_range = '[80,80)'",
    ),
    (
        "network_acl_entries_port_range_check",
        "update network_acl_entries set protocol = 6, port_range = '[80,65537)'",
    ),
    ("network_acl_entries_icmp_check", "update network_acl_entries set icmp_type = 8"),
    ("network_acl_entries_icmp_check", "update network_acl_entries set protocol = 1, icmp_type = 256"),
    ("network_acl_entries_icmp_check", "update network_acl_entries set protocol = 1, icmp_code = 0"),
    (
        "network_acl_entries_acl_fkey",
        "update network_acl_entries set vpc_id = u('12') where network_acl_id = acl('11')",
    ),
    (
        "network_acl_associations_subnet_key",
        "insert into network_acl_associations (id, account_id, vpc_id, network_acl_id, subnet_id) values (u('f'), u('a1'), u('11'), acl('11'), u('21'))",
    ),
    (
        "network_acl_associations_acl_fkey",
        "update network_acl_associations set network_acl_id = acl('12') where subnet_id = u('21')",
    ),
    (
        "network_acl_associations_acl_fkey",
        "delete from network_acl_entries; update network_acls set deleted_at = now() where id = acl('11')",
    ),
    (
        "network_acl_associations_subnet_fkey",
        "update network_acl_associations set subnet_id = u('f') where subnet_id = u('21')",
    ),
    (
        "network_acl_associations_subnet_stays",
        "delete from network_acl_associations where subnet_id = u('21')",
    ),
    (
        "subnets_network_acl_check",
        "update network_acls set is_default = false where vpc_id = u('14'); insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone) values (u('f'), u('a1'), u('14'), '10.0.0.0/16', 'x', '10.0.1.0/24', 'z-1a')",
    ),
];

/// A VPC without anything in it; the default ACL of a VPC.
const MORE: &str = "
    insert into vpcs (id, account_id, user_id, name, cidr_block, key) values
      (u('14'), u('a1'), u('b1'), 'v4', '10.0.0.0/16', 1004);
    create function acl(n text) returns uuid language sql stable as
      $$ select id from network_acls where vpc_id = u(n) and is_default and deleted_at is null $$;";

#[tokio::test]
async fn every_forbidden_write_is_refused_by_name() {
    let database = gon_testkit::database().await;
    gon_store::admin::script(&database.store, include_str!("constraints.sql")).await.unwrap();
    gon_store::admin::script(&database.store, MORE).await.unwrap();
    let mut wrong = Vec::new();
    for (name, statement) in REFUSED {
        match gon_store::admin::script(&database.store, statement).await {
            Err(error) if error.constraint() == Some(name) => {}
            other => wrong.push(format!("{name}\n  {statement}\n  {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_default_acl_comes_and_goes_with_its_vpc() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    gon_store::admin::script(store, include_str!("constraints.sql")).await.unwrap();
    gon_store::admin::script(store, MORE).await.unwrap();
    let lists = "select jsonb_build_array(direction, rule_number, action, protocol, cidr_block) from network_acl_entries
                 where network_acl_id = acl('14') order by direction";
    let rows = gon_store::admin::json(store, lists).await.unwrap();
    let all = |direction| json!([direction, 100, "allow", null, "0.0.0.0/0"]);
    assert_eq!(rows, [all("inbound"), all("outbound")]);
    let subnets =
        "select to_jsonb(count(*)) from subnets s join network_acl_associations a on a.subnet_id = s.id
                   join network_acls n on n.id = a.network_acl_id and n.is_default and n.vpc_id = s.vpc_id";
    assert_eq!(gon_store::admin::json(store, subnets).await.unwrap(), [json!(4)]);
    // It has the VPC's number; the ids of the rest rise with time, as those that the application makes do.
    let numbers = "select to_jsonb(bool_and(id = vpc_id)) from network_acls";
    assert_eq!(gon_store::admin::json(store, numbers).await.unwrap(), [json!(true)]);
    let versions = "select to_jsonb(bool_and(substr(id::text, 15, 1) = '7' and id > '01900000-0000-7000-8000-000000000000'))
                    from network_acl_associations";
    assert_eq!(gon_store::admin::json(store, versions).await.unwrap(), [json!(true)]);

    gon_store::admin::script(store, "update subnets set deleted_at = now() where id = u('24')")
        .await
        .unwrap();
    assert_eq!(gon_store::admin::json(store, subnets).await.unwrap(), [json!(3)]);
    gon_store::admin::script(store, "update vpcs set deleted_at = now() where id = u('14')").await.unwrap();
    let left = "select to_jsonb(count(*) filter (where deleted_at is null)) from network_acls where vpc_id = u('14')";
    assert_eq!(gon_store::admin::json(store, left).await.unwrap(), [json!(0)]);
    // An ACL of one's own is in the way, by its name.
    let own =
        "insert into network_acls (id, account_id, vpc_id, name) values (u('f1'), u('a1'), u('11'), 'own')";
    gon_store::admin::script(store, own).await.unwrap();
}

#[tokio::test]
async fn vpcs_from_before_get_what_they_would_have_had() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    // As it was before: the tables go, and what was made with them.
    gon_store::admin::script(store, include_str!("constraints.sql")).await.unwrap();
    gon_store::admin::script(store, "update subnets set deleted_at = now() where id = u('24')")
        .await
        .unwrap();
    gon_store::admin::script(
        store,
        "drop trigger vpcs_default_acl on vpcs; drop trigger vpcs_end_acl on vpcs;
         drop trigger subnets_default_acl on subnets; drop trigger subnets_acl on subnets;
         drop table network_acl_associations; drop table network_acl_entries; drop table network_acls;
         drop function network_acls_begin; drop function vpcs_begin_acl; drop function subnets_begin_acl;
         drop function vpcs_end_acl; drop function subnets_end_acl; drop function network_acl_associations_check;
         drop function network_acls_check_default; drop function new_id; drop type acl_action;",
    )
    .await
    .unwrap();
    gon_store::admin::script(store, include_str!("../../migrations/0006_network_acls.sql")).await.unwrap();
    let seen = "select jsonb_build_array(
        (select count(*) from network_acls where is_default), (select count(*) from network_acl_entries),
        (select count(*) from network_acl_associations),
        (select count(*) from subnets s join network_acl_associations a on a.subnet_id = s.id and a.vpc_id = s.vpc_id
         where s.deleted_at is null))";
    assert_eq!(gon_store::admin::json(store, seen).await.unwrap(), [json!([3, 6, 3, 3])]);
}

#[tokio::test]
async fn two_that_take_one_number_are_told_apart() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    gon_store::admin::script(store, include_str!("constraints.sql")).await.unwrap();
    gon_store::admin::script(store, MORE).await.unwrap();
    let put = "insert into network_acl_entries
        (account_id, vpc_id, network_acl_id, direction, rule_number, action, cidr_block)
        values (u('a1'), u('11'), acl('11'), 'inbound', 7, 'deny', '10.0.0.0/8')";
    let (one, two) = tokio::join!(gon_store::admin::script(store, put), gon_store::admin::script(store, put));
    let refused: Vec<StoreError> = [one, two].into_iter().filter_map(Result::err).collect();
    assert_eq!(
        refused.iter().map(StoreError::constraint).collect::<Vec<_>>(),
        [Some("network_acl_entries_key")]
    );
}
