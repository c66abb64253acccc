//! Images and instance types.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::images as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::DescribeImages,
        spec("listImages", Verb::Get, "/images", 200, "List images"),
        service::list,
    );
    routes.add(
        Action::DescribeImages,
        spec("getImage", Verb::Get, "/images/{id}", 200, "Describe an image"),
        service::get,
    );
    routes.add(
        Action::DescribeInstanceTypes,
        spec("listInstanceTypes", Verb::Get, "/instance-types", 200, "List instance types"),
        service::list_types,
    );
}
