use std::path::PathBuf;

use super::*;

const BOTH: Duties = Duties { control: true, worker: true };
const WORKER: Duties = Duties { control: false, worker: true };
const CONTROL: Duties = Duties { control: true, worker: false };

/// A server on which nothing is wrong.
fn sound() -> Facts {
    Facts {
        duties: BOTH,
        root: true,
        systemd: true,
        cpus: 8,
        memory_mib: 32 << 10,
        disk: (PathBuf::from("/var/lib/gon"), 200),
        virtualisation: Virtualisation::Proved("host".to_owned()),
        paths: vec![Way {
            server: "worker-1".to_owned(),
            device: Some(("eth0".to_owned(), 1500)),
            largest: Some(1500),
        }],
        guest_mtu: 1442,
        clock: Clock { synchronised: Some(true), offsets: vec![("worker-1".to_owned(), -1000)] },
        ports: vec![Port { number: 8080, role: "api-server", holder: None }],
        forward: Some(Forward { drops: false, docker: false, excepted: false }),
        bridge_filter: Some(false),
        ip_forward: Some(true),
        ufw: false,
        missing_modules: vec![],
        versions: vec![
            Installed { program: Program::Postgres, version: Some((15, 8)) },
            Installed { program: Program::RabbitMq, version: Some((3, 12)) },
            Installed { program: Program::Etcd, version: Some((3, 5)) },
            Installed { program: Program::OpenVSwitch, version: Some((3, 1)) },
            Installed { program: Program::Qemu, version: Some((7, 2)) },
            Installed { program: Program::Nftables, version: Some((1, 0)) },
            Installed { program: Program::Docker, version: Some((24, 0)) },
        ],
        names: Names {
            hostname: "control".to_owned(),
            resolves_to: vec!["127.0.1.1".parse().unwrap()],
            addresses: vec!["10.0.0.1".parse().unwrap()],
            unknown: vec![],
        },
    }
}

/// What is not good after a change.
fn faults(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Severity, String, Vec<String>)> {
    let mut facts = sound();
    change(&mut facts);
    let all = verdicts(&facts).into_iter().filter(|f| f.severity != Good);
    all.map(|f| (f.check, f.severity, f.what, f.mend)).collect()
}

/// The one fault of a change.
fn fault(change: impl FnOnce(&mut Facts)) -> (&'static str, Severity, String, String) {
    let mut all = faults(change);
    assert_eq!(all.len(), 1, "{all:?}");
    let (check, severity, what, mend) = all.remove(0);
    (check, severity, what, mend.join(" && "))
}

#[test]
fn a_sound_server_has_no_fault() {
    assert!(faults(|_| {}).is_empty());
    assert_eq!(worst(&verdicts(&sound())), Good);
    assert_eq!(worst(&[]), Good);
}

#[test]
fn every_fault_names_itself_and_what_mends_it() {
    let (check, severity, what, mend) = fault(|f| f.virtualisation = Virtualisation::NoDevice("kvm-amd"));
    assert_eq!((check, severity, mend.as_str()), ("virtualisation", Warning, "modprobe kvm-amd"));
    assert!(what.contains("emulated"));

    let (_, severity, what, _) =
        fault(|f| f.virtualisation = Virtualisation::Failed("a guest hung".to_owned()));
    assert_eq!(severity, Warning);
    assert!(what.contains("a guest hung"));

    let (check, severity, _, mend) = fault(|f| f.virtualisation = Virtualisation::NoKernel);
    assert_eq!((check, severity, mend.as_str()), ("virtualisation", Warning, "gond image build gon-linux"));

    let (check, severity, _, _) = fault(|f| f.memory_mib = 500);
    assert_eq!((check, severity), ("memory", Error));
    let (check, severity, _, _) = fault(|f| f.disk.1 = 1);
    assert_eq!((check, severity), ("disk", Error));

    let (check, severity, what, mend) = fault(|f| f.ports[0].holder = Some("nginx".to_owned()));
    assert_eq!((check, severity), ("port", Error));
    assert!(what.contains("nginx"));
    assert_eq!(mend, "ss -ltnp 'sport = :8080'");

    let forward = |docker| Some(Forward { drops: true, docker, excepted: false });
    let (check, severity, _, mend) = fault(|f| f.forward = forward(false));
    assert_eq!((check, severity), ("forwarding", Error));
    assert!(mend.contains("iptables -I FORWARD -i gon-ext -j ACCEPT"), "{mend}");
    let (_, severity, what, mend) = fault(|f| f.forward = forward(true));
    assert_eq!((severity, mend.as_str()), (Note, ""));
    assert!(what.contains("Docker"));

    let (check, severity, _, mend) = fault(|f| f.bridge_filter = Some(true));
    assert_eq!((check, severity), ("br_netfilter", Note));
    assert!(mend.starts_with("sysctl -w"));

    let (check, severity, what, _) = fault(|f| f.missing_modules = vec!["openvswitch"]);
    assert_eq!((check, severity), ("modules", Warning));
    assert!(what.contains("userspace"));
    assert_eq!(fault(|f| f.missing_modules = vec!["tun"]).1, Error);

    let (check, severity, _, mend) = fault(|f| f.clock.synchronised = Some(false));
    assert_eq!((check, severity), ("clock", Warning));
    assert!(mend.contains("chrony"));

    let (check, severity, _, _) = fault(|f| f.ufw = true);
    assert_eq!((check, severity), ("firewall", Warning));

    let (check, severity, _, mend) = fault(|f| f.names.unknown = vec!["worker-9".to_owned()]);
    assert_eq!((check, severity), ("name", Error));
    assert!(mend.contains("worker-9"));
}

#[test]
fn what_a_server_is_not_to_be_is_not_asked_of_it() {
    let missing = |program| Installed { program, version: None };
    let worker = faults(|f| {
        f.duties = WORKER;
        f.versions = vec![missing(Program::Postgres), missing(Program::RabbitMq), missing(Program::Etcd)];
    });
    assert!(worker.is_empty(), "{worker:?}");
    let control = faults(|f| {
        f.duties = CONTROL;
        f.virtualisation = Virtualisation::NoFlag;
        f.forward = Some(Forward { drops: true, docker: false, excepted: false });
        f.versions = vec![missing(Program::Qemu), missing(Program::OpenVSwitch), missing(Program::Docker)];
    });
    assert!(control.is_empty(), "{control:?}");
    let (check, severity, what, mend) = fault(|f| f.versions = vec![missing(Program::Qemu)]);
    assert_eq!((check, severity), ("version", Error));
    assert!(what.contains("QEMU is not installed"));
    assert_eq!(mend, "apt-get install --no-install-recommends qemu-system-x86");
}

#[test]
fn versions_are_held_against_what_works_and_what_is_named() {
    let of = |program, version| fault(|f| f.versions = vec![Installed { program, version: Some(version) }]);
    assert_eq!(of(Program::Postgres, (13, 9)).1, Error);
    let (_, severity, what, _) = of(Program::RabbitMq, (3, 10));
    assert_eq!(severity, Note);
    assert!(what.contains("3.12"), "{what}");
    assert_eq!(of(Program::Etcd, (3, 4)).1, Note);
    assert_eq!(of(Program::OpenVSwitch, (2, 13)).1, Error);
    assert_eq!(of(Program::Docker, (19, 3)).1, Warning);
}

#[test]
fn a_path_is_as_wide_as_what_arrives() {
    let way = |device_mtu, largest, guest_mtu| {
        let found = faults(|f| {
            f.guest_mtu = guest_mtu;
            f.paths[0].device = Some(("eth0".to_owned(), device_mtu));
            f.paths[0].largest = largest;
        });
        found.into_iter().next().map(|(_, severity, what, mend)| (severity, what, mend.join("\n")))
    };
    assert_eq!(way(1500, Some(1500), 1442), None);
    assert_eq!(way(9000, Some(9000), 1500), None);
    let (severity, _, mend) = way(1500, Some(1500), 1500).unwrap();
    assert_eq!(severity, Error);
    assert!(mend.contains("mtu = 1442") && mend.contains("eth0 mtu 1558"), "{mend}");
    let (severity, what, mend) = way(9000, Some(1500), 1442).unwrap();
    assert_eq!(severity, Error);
    assert!(what.contains("vanish"), "{what}");
    assert_eq!(mend, "ip link set dev eth0 mtu 1500");
    assert!(way(1500, None, 1442).unwrap().1.contains("does not answer"));
    assert_eq!(faults(|f| f.paths[0].device = None)[0].1, Error);
    // A controller carries no tunnels.
    let control = faults(|f| {
        f.duties = CONTROL;
        f.guest_mtu = 1500;
    });
    assert!(control.is_empty());
    // No arithmetic on a path that carries nothing.
    let (severity, _, _) = way(100, Some(20), 1500).unwrap();
    assert_eq!(severity, Error);
}

#[test]
fn clocks_are_compared_in_whole_seconds() {
    let of = |offset| faults(|f| f.clock.offsets = vec![("w".to_owned(), offset)]).into_iter().next();
    assert_eq!(of(2_900), None);
    assert_eq!(of(-4_000).unwrap().1, Warning);
    let (_, severity, what, _) = of(120_000).unwrap();
    assert_eq!(severity, Error);
    assert!(what.contains("120 s ahead of us"));
    assert_eq!(of(i64::MIN).unwrap().1, Error);
}

#[test]
fn our_own_listeners_are_no_strangers() {
    for (role, holder) in
        [("api-server", "gond"), ("postgresql", "postgres"), ("rabbitmq", "beam.smp"), ("etcd", "etcd")]
    {
        let port = Port { number: 1, role, holder: Some(holder.to_owned()) };
        assert_eq!(super::port(&port).severity, Good, "{role}");
    }
    let unknown = Port { number: 1, role: "api-server", holder: Some("?".to_owned()) };
    assert_eq!(super::port(&unknown).severity, Note);
}

#[test]
fn a_name_is_this_servers_own() {
    let of = |host: &str, to: &[&str]| {
        faults(|f| {
            f.names.hostname = host.to_owned();
            f.names.resolves_to = to.iter().map(|a| a.parse().unwrap()).collect();
        })
    };
    assert!(of("control", &["10.0.0.1"]).is_empty());
    assert!(of("control", &["127.0.1.1", "10.0.0.1"]).is_empty());
    assert_eq!(of("localhost", &["127.0.0.1"])[0].1, Error);
    assert_eq!(of("control", &["10.0.0.9"])[0].1, Error);
    assert_eq!(of("control", &[])[0].1, Warning);
}

#[test]
fn everything_that_is_not_good_says_what_to_do_or_is_a_note() {
    let mut facts = sound();
    facts.root = false;
    facts.ufw = true;
    facts.forward = Some(Forward { drops: true, docker: false, excepted: false });
    facts.paths[0].largest = None;
    facts.clock = Clock { synchronised: Some(false), offsets: vec![("w".to_owned(), 90_000)] };
    facts.versions = vec![Installed { program: Program::Qemu, version: None }];
    for finding in verdicts(&facts) {
        assert!(finding.severity <= Note || !finding.mend.is_empty(), "{finding:?}");
    }
    let json = serde_json::to_value(verdicts(&facts)).unwrap();
    assert_eq!(json[0]["check"], "privilege");
    assert_eq!(json[0]["severity"], "warning");
}
