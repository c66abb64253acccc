//! Security groups (specification §5.3).

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::security_groups as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::CreateSecurityGroup,
        spec("createSecurityGroup", Verb::Post, "/security-groups", 201, "Create a security group"),
        service::create,
    );
    routes.add(
        Action::DescribeSecurityGroups,
        spec("listSecurityGroups", Verb::Get, "/security-groups", 200, "List security groups"),
        service::list,
    );
    routes.add(
        Action::DescribeSecurityGroups,
        spec("getSecurityGroup", Verb::Get, "/security-groups/{id}", 200, "Describe a security group"),
        service::get,
    );
    routes.add(
        Action::ModifySecurityGroup,
        spec(
            "updateSecurityGroup",
            Verb::Put,
            "/security-groups/{id}",
            200,
            "Change name and description of a security group",
        ),
        service::update,
    );
    routes.add(
        Action::DeleteSecurityGroup,
        spec(
            "deleteSecurityGroup",
            Verb::Delete,
            "/security-groups/{id}",
            204,
            "Delete a security group nothing uses",
        ),
        service::delete,
    );
    routes.add(
        Action::AuthorizeSecurityGroup,
        spec("createSecurityGroupRule", Verb::Post, "/security-groups/{id}/rules", 201, "Add a rule"),
        service::add_rule,
    );
    routes.add(
        Action::RevokeSecurityGroup,
        spec(
            "deleteSecurityGroupRule",
            Verb::Delete,
            "/security-groups/{id}/rules/{rule_id}",
            200,
            "Remove a rule",
        ),
        service::remove_rule,
    );
}
