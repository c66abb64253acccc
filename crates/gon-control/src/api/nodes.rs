//! Nodes, for operators.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::nodes as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::DescribeNodes,
        spec("listNodes", Verb::Get, "/nodes", 200, "List nodes"),
        service::list,
    );
}
