//! A5: the agent is stopped, as `SIGSTOP` does, at any moment of a launch or of a removal, and something else is decided
//! while it sleeps. Whatever it had in its hands, in the end there is what was decided last, once.

use std::time::Duration;

use gon_proto::PowerSpec;
use gon_testkit::{did, measure};
use rustix::process::Signal;

use super::ObservedInstance::{Gone, Running};
use super::{in_world, qemu_of};

#[test]
fn an_agent_that_slept_does_what_was_decided_last() {
    in_world(|mut world| async move {
        let sleeps = measure(40, 200);
        world.start_agent(None);
        let agent = world.agent.unwrap();
        let mut running = 0;
        for sleep in 0..sleeps {
            let i = world.instance("halts");
            world.publish();
            // Two of three in the middle of a launch, the others in the middle of a removal.
            let launches = sleep % 3 != 2;
            if !launches {
                world.until(i, Running).await;
                world.want(i, |spec| spec.power = PowerSpec::Terminated);
            }
            tokio::time::sleep(Duration::from_millis(sleep * 37 % 160)).await;
            agent.signal(Signal::STOP).unwrap();
            running += usize::from(qemu_of(&world.instances[i]).is_some());
            // What it does not know: the instance is to go; or, as if nothing had been, everything is said again.
            world.want(i, |spec| spec.power = PowerSpec::Terminated);
            tokio::time::sleep(Duration::from_millis(30)).await;
            agent.signal(Signal::CONT).unwrap();
            world.until(i, Gone).await;
            assert_eq!(world.qemus(i), 0, "sleep {sleep}");
            assert!(!world.dir_of(i).exists(), "sleep {sleep}");
            world.instances.clear();
        }
        did(
            "A5",
            &format!("{sleeps} sleeps of an agent, {running} of them beside a guest: nothing stale was left"),
        );
    });
}
