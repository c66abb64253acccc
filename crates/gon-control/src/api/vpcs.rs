//! VPCs (specification §5.1).

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::{default_vpc, vpcs as service};

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::CreateVpc,
        spec(
            "createVpc",
            Verb::Post,
            "/vpcs",
            201,
            "Create a VPC with its main route table and default group",
        ),
        service::create,
    );
    routes.add(Action::DescribeVpcs, spec("listVpcs", Verb::Get, "/vpcs", 200, "List VPCs"), service::list);
    routes.add(
        Action::DescribeVpcs,
        spec("getVpc", Verb::Get, "/vpcs/{id}", 200, "Describe a VPC"),
        service::get,
    );
    routes.add(
        Action::ModifyVpc,
        spec("updateVpc", Verb::Put, "/vpcs/{id}", 200, "Rename a VPC"),
        service::update,
    );
    routes.add(
        Action::CreateDefaultVpc,
        spec(
            "createDefaultVpc",
            Verb::Post,
            "/vpcs/default",
            201,
            "Create the VPC of launches that name no subnet",
        ),
        default_vpc::create,
    );
    routes.add(
        Action::AssociateVpcCidrBlock,
        spec("associateVpcCidrBlock", Verb::Post, "/vpcs/{id}/cidr-blocks", 201, "Give a VPC another block"),
        service::associate_block,
    );
    routes.add(
        Action::DisassociateVpcCidrBlock,
        spec(
            "disassociateVpcCidrBlock",
            Verb::Delete,
            "/vpcs/{id}/cidr-blocks/{association_id}",
            200,
            "Take a further block nothing is in from a VPC",
        ),
        service::disassociate_block,
    );
    routes.add(
        Action::DeleteVpc,
        spec("deleteVpc", Verb::Delete, "/vpcs/{id}", 204, "Delete a VPC nothing depends on"),
        service::delete,
    );
}
