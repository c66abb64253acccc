//! Allocated public addresses.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::addresses as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::AllocateAddress,
        spec("allocateAddress", Verb::Post, "/addresses", 201, "Allocate a public address"),
        service::allocate,
    );
    routes.add(
        Action::DescribeAddresses,
        spec("listAddresses", Verb::Get, "/addresses", 200, "List allocated addresses"),
        service::list,
    );
    routes.add(
        Action::DescribeAddresses,
        spec("getAddress", Verb::Get, "/addresses/{id}", 200, "Describe an allocated address"),
        service::get,
    );
    routes.add(
        Action::ReleaseAddress,
        spec("releaseAddress", Verb::Delete, "/addresses/{id}", 204, "Release an address that is not mapped"),
        service::release,
    );
    routes.add(
        Action::AssociateAddress,
        spec(
            "associateAddress",
            Verb::Post,
            "/addresses/{id}/associate",
            200,
            "Map an address to an instance",
        ),
        service::associate,
    );
    routes.add(
        Action::DisassociateAddress,
        spec("disassociateAddress", Verb::Post, "/addresses/{id}/disassociate", 200, "Unmap an address"),
        service::disassociate,
    );
}
