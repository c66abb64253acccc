//! Network ACLs.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::network_acls as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::CreateNetworkAcl,
        spec(
            "createNetworkAcl",
            Verb::Post,
            "/network-acls",
            201,
            "Create a network ACL that denies everything",
        ),
        service::create,
    );
    routes.add(
        Action::DescribeNetworkAcls,
        spec("listNetworkAcls", Verb::Get, "/network-acls", 200, "List network ACLs"),
        service::list,
    );
    routes.add(
        Action::DescribeNetworkAcls,
        spec("getNetworkAcl", Verb::Get, "/network-acls/{id}", 200, "Describe a network ACL"),
        service::get,
    );
    routes.add(
        Action::ModifyNetworkAcl,
        spec("updateNetworkAcl", Verb::Put, "/network-acls/{id}", 200, "Rename a network ACL"),
        service::update,
    );
    routes.add(
        Action::DeleteNetworkAcl,
        spec(
            "deleteNetworkAcl",
            Verb::Delete,
            "/network-acls/{id}",
            204,
            "Delete a network ACL that guards nothing",
        ),
        service::delete,
    );
    routes.add(
        Action::CreateNetworkAclEntry,
        spec("createNetworkAclEntry", Verb::Post, "/network-acls/{id}/entries", 201, "Add an entry"),
        service::add_entry,
    );
    routes.add(
        Action::ReplaceNetworkAclEntry,
        spec(
            "replaceNetworkAclEntry",
            Verb::Put,
            "/network-acls/{id}/entries",
            200,
            "Put an entry in the place of the one of its direction and number",
        ),
        service::replace_entry,
    );
    routes.add(
        Action::DeleteNetworkAclEntry,
        spec("deleteNetworkAclEntry", Verb::Delete, "/network-acls/{id}/entries", 200, "Remove an entry"),
        service::remove_entry,
    );
    routes.add(
        Action::ReplaceNetworkAclAssociation,
        spec(
            "replaceNetworkAclAssociation",
            Verb::Post,
            "/network-acls/{id}/associations",
            201,
            "Let a network ACL guard a subnet, in the place of the one that does",
        ),
        service::associate,
    );
}
