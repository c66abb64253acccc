//! Managed prefix lists.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::prefix_lists as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::CreateManagedPrefixList,
        spec("createPrefixList", Verb::Post, "/prefix-lists", 201, "Create a prefix list"),
        service::create,
    );
    routes.add(
        Action::DescribeManagedPrefixLists,
        spec("listPrefixLists", Verb::Get, "/prefix-lists", 200, "List prefix lists"),
        service::list,
    );
    routes.add(
        Action::DescribeManagedPrefixLists,
        spec("getPrefixList", Verb::Get, "/prefix-lists/{id}", 200, "Describe a prefix list"),
        service::get,
    );
    routes.add(
        Action::ModifyManagedPrefixList,
        spec(
            "updatePrefixList",
            Verb::Put,
            "/prefix-lists/{id}",
            200,
            "Change a prefix list and every rule and route that names it",
        ),
        service::update,
    );
    routes.add(
        Action::DeleteManagedPrefixList,
        spec(
            "deletePrefixList",
            Verb::Delete,
            "/prefix-lists/{id}",
            204,
            "Delete a prefix list that no rule and no route names",
        ),
        service::delete,
    );
}
