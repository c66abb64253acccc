//! Operations: what was answered before it was done.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::operations as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::DescribeOperations,
        spec("listOperations", Verb::Get, "/operations", 200, "List operations"),
        service::list,
    );
    routes.add(
        Action::DescribeOperations,
        spec("getOperation", Verb::Get, "/operations/{id}", 200, "Describe an operation"),
        service::get,
    );
    routes.add(
        Action::CancelOperation,
        spec(
            "cancelOperation",
            Verb::Post,
            "/operations/{id}/cancel",
            200,
            "Call off an operation that the platform works on: a drain",
        ),
        service::cancel,
    );
}
