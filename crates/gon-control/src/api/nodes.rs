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
    routes.add(
        Action::DescribeNodes,
        spec("getNode", Verb::Get, "/nodes/{id}", 200, "Describe a node"),
        service::get,
    );
    routes.add(
        Action::CordonNode,
        spec("cordonNode", Verb::Post, "/nodes/{id}/cordon", 200, "Keep new instances away from a node"),
        service::cordon,
    );
    routes.add(
        Action::UncordonNode,
        spec(
            "uncordonNode",
            Verb::Post,
            "/nodes/{id}/uncordon",
            200,
            "Let instances come to a node again; ends a drain",
        ),
        service::uncordon,
    );
    routes.add(
        Action::DrainNode,
        spec(
            "drainNode",
            Verb::Post,
            "/nodes/{id}/drain",
            202,
            "Empty a node: what can move moves, what cannot is named",
        ),
        service::drain,
    );
    routes.add(
        Action::RemoveNode,
        spec(
            "removeNode",
            Verb::Delete,
            "/nodes/{id}",
            200,
            "Remove a node that has nothing, or give up one that is unknown",
        ),
        service::remove,
    );
}
