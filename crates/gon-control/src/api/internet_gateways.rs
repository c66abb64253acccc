//! Internet gateways.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::internet_gateways as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::CreateInternetGateway,
        spec("createInternetGateway", Verb::Post, "/internet-gateways", 201, "Create an internet gateway"),
        service::create,
    );
    routes.add(
        Action::DescribeInternetGateways,
        spec("listInternetGateways", Verb::Get, "/internet-gateways", 200, "List internet gateways"),
        service::list,
    );
    routes.add(
        Action::DescribeInternetGateways,
        spec("getInternetGateway", Verb::Get, "/internet-gateways/{id}", 200, "Describe an internet gateway"),
        service::get,
    );
    routes.add(
        Action::ModifyInternetGateway,
        spec(
            "updateInternetGateway",
            Verb::Put,
            "/internet-gateways/{id}",
            200,
            "Rename an internet gateway",
        ),
        service::update,
    );
    routes.add(
        Action::DeleteInternetGateway,
        spec(
            "deleteInternetGateway",
            Verb::Delete,
            "/internet-gateways/{id}",
            204,
            "Delete an internet gateway that is not attached",
        ),
        service::delete,
    );
    routes.add(
        Action::AttachInternetGateway,
        spec(
            "attachInternetGateway",
            Verb::Post,
            "/internet-gateways/{id}/attach",
            200,
            "Attach an internet gateway to a VPC",
        ),
        service::attach,
    );
    routes.add(
        Action::DetachInternetGateway,
        spec(
            "detachInternetGateway",
            Verb::Post,
            "/internet-gateways/{id}/detach",
            200,
            "Detach an internet gateway from its VPC",
        ),
        service::detach,
    );
}
