//! Route tables.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::route_tables as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::CreateRouteTable,
        spec("createRouteTable", Verb::Post, "/route-tables", 201, "Create a route table"),
        service::create,
    );
    routes.add(
        Action::DescribeRouteTables,
        spec("listRouteTables", Verb::Get, "/route-tables", 200, "List route tables"),
        service::list,
    );
    routes.add(
        Action::DescribeRouteTables,
        spec("getRouteTable", Verb::Get, "/route-tables/{id}", 200, "Describe a route table"),
        service::get,
    );
    routes.add(
        Action::ModifyRouteTable,
        spec("updateRouteTable", Verb::Put, "/route-tables/{id}", 200, "Rename a route table"),
        service::update,
    );
    routes.add(
        Action::DeleteRouteTable,
        spec(
            "deleteRouteTable",
            Verb::Delete,
            "/route-tables/{id}",
            204,
            "Delete a route table nothing follows",
        ),
        service::delete,
    );
    routes.add(
        Action::CreateRoute,
        spec("createRoute", Verb::Post, "/route-tables/{id}/routes", 201, "Add a route"),
        service::add_route,
    );
    routes.add(
        Action::ReplaceRoute,
        spec(
            "replaceRoute",
            Verb::Put,
            "/route-tables/{id}/routes",
            200,
            "Give the route to a destination another target",
        ),
        service::replace_route,
    );
    routes.add(
        Action::DeleteRoute,
        spec(
            "deleteRoute",
            Verb::Delete,
            "/route-tables/{id}/routes",
            200,
            "Remove the route to a destination",
        ),
        service::remove_route,
    );
    routes.add(
        Action::AssociateRouteTable,
        spec(
            "createRouteTableAssociation",
            Verb::Post,
            "/route-tables/{id}/associations",
            201,
            "Let a subnet follow a route table",
        ),
        service::associate,
    );
    routes.add(
        Action::ReplaceRouteTableAssociation,
        spec(
            "replaceRouteTableAssociation",
            Verb::Put,
            "/route-tables/{id}/associations/{association_id}",
            200,
            "Let a subnet follow another route table, or make another one the main one",
        ),
        service::replace_association,
    );
    routes.add(
        Action::DisassociateRouteTable,
        spec(
            "deleteRouteTableAssociation",
            Verb::Delete,
            "/route-tables/{id}/associations/{association_id}",
            200,
            "Let a subnet follow the main route table again",
        ),
        service::disassociate,
    );
}
