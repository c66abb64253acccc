//! Key pairs.

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::key_pairs as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::CreateKeyPair,
        spec("createKeyPair", Verb::Post, "/key-pairs", 201, "Generate or import a key pair"),
        service::create,
    );
    routes.add(
        Action::DescribeKeyPairs,
        spec("listKeyPairs", Verb::Get, "/key-pairs", 200, "List key pairs"),
        service::list,
    );
    routes.add(
        Action::DescribeKeyPairs,
        spec("getKeyPair", Verb::Get, "/key-pairs/{id}", 200, "Describe a key pair"),
        service::get,
    );
    routes.add(
        Action::DeleteKeyPair,
        spec("deleteKeyPair", Verb::Delete, "/key-pairs/{id}", 204, "Delete a key pair"),
        service::delete,
    );
}
