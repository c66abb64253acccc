//! What the proofs stand on: that a capture sees, that a leftover shows, that a silence is one.

use std::net::Ipv4Addr;
use std::time::Duration;

use e2e::capture::Way;
use e2e::leftovers::Snapshot;
use e2e::probe::{self, LongPing};
use e2e::topology::HostServer;
use e2e::{Capture, Namespace, process};

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Two namespaces and a wire.
fn pair(name: &str) -> anyhow::Result<(Namespace, Namespace)> {
    let name = format!("gon-e2e-{}-{name}", std::process::id());
    let (here, there) = (Namespace::create(&name)?, Namespace::create(&format!("{name}2"))?);
    here.check(&[
        "ip",
        "link",
        "add",
        "name",
        "here0",
        "type",
        "veth",
        "peer",
        "name",
        "there0",
        "netns",
        there.name(),
    ])?;
    for (inside, device, address) in [(&here, "here0", HERE), (&there, "there0", THERE)] {
        inside.check(&["ip", "addr", "add", &format!("{address}/24"), "dev", device])?;
        inside.check(&["ip", "link", "set", device, "up"])?;
    }
    Ok((here, there))
}

#[test]
fn a_capture_sees_what_passes_and_a_probe_what_answers() {
    let (here, there) = pair("probe").unwrap();
    let mut capture = Capture::start(&here, "here0", Way::ToGuest, "icmp").unwrap();
    assert!(probe::ping(&here, THERE).unwrap());
    capture.expect(&["echo request", "192.0.2.1 > 192.0.2.2"], Duration::from_secs(2)).unwrap();
    assert_eq!(capture.finish(&["echo reply"]), Vec::<String>::new(), "the other way was captured too");
    let server = HostServer::start(&there).unwrap();
    assert!(probe::connect(&here, THERE, server.port).unwrap().is_some());
    assert!(probe::connect(&here, THERE, server.port + 1).unwrap().is_none());
    assert!(!probe::ssh_banner(&here, THERE).unwrap());
    let long = LongPing::start(&here, THERE).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let count = long.finish().unwrap();
    assert!(count.sent > 25 && count.lost.is_empty(), "{count:?}");
    let long = LongPing::start(&here, THERE).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    there.check(&["ip", "addr", "flush", "dev", "there0"]).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let count = long.finish().unwrap();
    assert!(!count.lost.is_empty(), "a host that went away lost nothing: {count:?}");
    assert!(!probe::ping(&here, THERE).unwrap());
}

#[test]
fn what_is_left_behind_shows() {
    let (here, _there) = pair("left").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let before = Snapshot::take(&here, folder.path(), &[]).unwrap();
    assert_eq!(Snapshot::take(&here, folder.path(), &[]).unwrap().beyond(&before), Vec::<String>::new());
    here.check(&["nft", "add", "table", "inet", "gon"]).unwrap();
    here.check(&["ip", "tuntap", "add", "tap-left", "mode", "tap"]).unwrap();
    here.check(&["ip", "addr", "add", "198.51.100.1/32", "dev", "lo"]).unwrap();
    // One that is only found by its namespace, one only by a file it holds open.
    let mut inside = here.command("sleep").arg("60").spawn().unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut writing = std::process::Command::new("sleep").arg("60").stdout(log).spawn().unwrap();
    let found = e2e::wait::until("what is left shows", Duration::from_secs(5), || {
        let left = Snapshot::take(&here, folder.path(), &[])?.beyond(&before);
        let has = |start: String| left.iter().any(|l| l.starts_with(&start));
        let all = has("left: filter: table inet gon".to_owned())
            && has("left: device: tap-left".to_owned())
            && has("left: address: lo ".to_owned())
            && has(format!("left: process: {} sleep", inside.id()))
            && has(format!("left: process: {} sleep", writing.id()));
        Ok(all.then_some(()))
    });
    for child in [&mut inside, &mut writing] {
        process::kill_hard(child.id().cast_signed());
        child.wait().unwrap();
    }
    found.unwrap();
}
