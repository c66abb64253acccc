//! Network interfaces.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::network_interfaces as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
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
}
