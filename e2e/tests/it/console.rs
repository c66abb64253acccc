//! The web console in a browser, against a cloud that works: the turn that `console/e2e/smoke.e2e.ts` takes.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use e2e::binaries::workspace;
use e2e::process::check;
use e2e::world::{API_URL, PASSWORD, USER, World};
use e2e::{Host, say, tell};

/// Node and the console's packages, where they are not there yet.
const INSTALLED: Duration = Duration::from_secs(300);
/// The whole turn, on a machine that is busy with other tests.
const TURN: Duration = Duration::from_secs(240);

#[test]
fn the_console_makes_a_network_launches_into_it_and_deletes_it() {
    tell("console", |world: &World| {
        let script = workspace().join("scripts/console-build.sh");
        // Outside: inside there is no way to a registry.
        check(Command::new(&script).args(["exec", "true"]), INSTALLED).context("the console's packages")?;
        let mut smoke = world.inside().command(&script.to_string_lossy());
        smoke.args(["exec", "npm", "run", "--silent", "e2e:smoke"]).env("NO_COLOR", "1");
        smoke.env("GON_URL", API_URL).env("GON_USER", USER).env("GON_PASSWORD", PASSWORD);
        say!("{}", check(&mut smoke, TURN)?.trim());
        Ok(())
    });
}
