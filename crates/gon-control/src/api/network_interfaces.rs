//! Network interfaces.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::network_interfaces as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::CreateNetworkInterface,
        spec("createNetworkInterface", Verb::Post, "/network-interfaces", 201, "Create a network interface"),
        service::create,
    );
    routes.add(
        Action::DescribeNetworkInterfaces,
        spec("listNetworkInterfaces", Verb::Get, "/network-interfaces", 200, "List network interfaces"),
        service::list,
    );
    routes.add(
        Action::DescribeNetworkInterfaces,
        spec(
            "getNetworkInterface",
            Verb::Get,
            "/network-interfaces/{id}",
            200,
            "Describe a network interface",
        ),
        service::get,
    );
    routes.add(
        Action::ModifyNetworkInterfaceAttribute,
        spec(
            "updateNetworkInterface",
            Verb::Put,
            "/network-interfaces/{id}",
            200,
            "Change a network interface",
        ),
        service::update,
    );
    routes.add(
        Action::DeleteNetworkInterface,
        spec(
            "deleteNetworkInterface",
            Verb::Delete,
            "/network-interfaces/{id}",
            204,
            "Delete a network interface that is not attached",
        ),
        service::delete,
    );
    routes.add(
        Action::AttachNetworkInterface,
        spec(
            "attachNetworkInterface",
            Verb::Post,
            "/network-interfaces/{id}/attach",
            200,
            "Attach a network interface to a stopped instance",
        ),
        service::attach,
    );
    routes.add(
        Action::DetachNetworkInterface,
        spec(
            "detachNetworkInterface",
            Verb::Post,
            "/network-interfaces/{id}/detach",
            200,
            "Detach a network interface from its stopped instance",
        ),
        service::detach,
    );
    routes.add(
        Action::AssignPrivateIpAddresses,
        spec(
            "assignPrivateIps",
            Verb::Post,
            "/network-interfaces/{id}/private-ips",
            200,
            "Give a network interface secondary addresses",
        ),
        service::assign,
    );
    routes.add(
        Action::UnassignPrivateIpAddresses,
        spec(
            "unassignPrivateIps",
            Verb::Post,
            "/network-interfaces/{id}/private-ips/unassign",
            200,
            "Take secondary addresses from a network interface",
        ),
        service::unassign,
    );
}
