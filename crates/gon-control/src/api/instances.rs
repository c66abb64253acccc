//! Instances (specification §5.2).

use gon_core::authz::Action;

use super::route::{Routes, Spec, Verb};
use crate::service::instances as service;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.add(
        Action::RunInstances,
        spec("launchInstance", Verb::Post, "/instances", 202, "Launch instances"),
        service::launch,
    );
    routes.add(
        Action::DescribeInstances,
        spec("listInstances", Verb::Get, "/instances", 200, "List instances"),
        service::list,
    );
    routes.add(
        Action::DescribeInstances,
        spec("getInstance", Verb::Get, "/instances/{id}", 200, "Describe an instance"),
        service::get,
    );
    routes.add(
        Action::ModifyInstanceAttribute,
        spec(
            "updateInstance",
            Verb::Put,
            "/instances/{id}",
            200,
            "Rename an instance, or resize it while it is stopped",
        ),
        service::update,
    );
    routes.add(
        Action::TerminateInstances,
        spec("terminateInstance", Verb::Delete, "/instances/{id}", 202, "Terminate an instance"),
        service::terminate,
    );
    routes.add(
        Action::StartInstances,
        spec("startInstance", Verb::Post, "/instances/{id}/start", 202, "Start a stopped instance"),
        service::start,
    );
    routes.add(
        Action::StopInstances,
        spec("stopInstance", Verb::Post, "/instances/{id}/stop", 202, "Stop a running instance"),
        service::stop,
    );
    routes.add(
        Action::RebootInstances,
        spec("rebootInstance", Verb::Post, "/instances/{id}/reboot", 202, "Reboot a running instance"),
        service::reboot,
    );
    routes.add(
        Action::GetConsoleOutput,
        spec(
            "getConsoleOutput",
            Verb::Get,
            "/instances/{id}/console-output",
            200,
            "What the serial console has said",
        ),
        service::console_output,
    );
}
