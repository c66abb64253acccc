//! Subnets, below their VPC (specification §5.1) and by themselves.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::subnets as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::CreateSubnet,
        spec("createSubnet", Verb::Post, "/vpcs/{id}/subnets", 201, "Create a subnet"),
        service::create,
    );
    routes.add(
        Action::DescribeSubnets,
        spec("listVpcSubnets", Verb::Get, "/vpcs/{id}/subnets", 200, "List the subnets of a VPC"),
        service::list_of_vpc,
    );
    routes.add(
        Action::DescribeSubnets,
        spec("listSubnets", Verb::Get, "/subnets", 200, "List subnets"),
        service::list,
    );
    routes.add(
        Action::DescribeSubnets,
        spec("getSubnet", Verb::Get, "/subnets/{id}", 200, "Describe a subnet"),
        service::get,
    );
    routes.add(
        Action::ModifySubnetAttribute,
        spec("updateSubnet", Verb::Put, "/subnets/{id}", 200, "Change a subnet"),
        service::update,
    );
    routes.add(
        Action::DeleteSubnet,
        spec("deleteSubnet", Verb::Delete, "/subnets/{id}", 204, "Delete a subnet without interfaces"),
        service::delete,
    );
}
