//! What is wrong, and what mends it. Pure and total.

use super::Severity::{Error, Good, Note, Warning};
use super::{
    Clock, Duties, Facts, Finding, Forward, Installed, Names, Port, Program, Severity, Virtualisation, Way,
};

/// What a packet of a guest grows by on its way to another node: Geneve in UDP in IPv4 in Ethernet, with room for eight
/// bytes of options.
pub const OVERLAY: u32 = 58;
/// The kernel's module and device by which guests' public addresses are reached.
const EXTERNAL: &str = "gon-ext";

/// Judges everything that was probed, in the order in which it is best mended.
#[must_use]
pub fn verdicts(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![privilege(facts.root), service_manager(facts.systemd)];
    all.extend(facts.versions.iter().filter_map(|i| version(i, facts.duties)));
    all.push(processors(facts.cpus));
    all.push(memory(facts.memory_mib, facts.duties));
    all.push(disk(&facts.disk.0.display().to_string(), facts.disk.1));
    if facts.duties.worker {
        all.push(virtualisation(&facts.virtualisation));
        all.push(modules(&facts.missing_modules));
        all.extend(facts.forward.map(|f| forward_policy(&f)));
        all.extend(facts.bridge_filter.map(bridge_filter));
        all.extend(facts.ip_forward.map(ip_forward));
    }
    all.extend(facts.paths.iter().map(|p| path(p, facts.guest_mtu, facts.duties)));
    all.extend(clock(&facts.clock));
    all.extend(facts.ports.iter().map(port));
    if facts.ufw {
        all.push(firewall(&facts.ports));
    }
    all.extend(names(&facts.names, facts.duties));
    all
}

/// The worst of all.
#[must_use]
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|f| f.severity).max().unwrap_or(Good)
}

fn privilege(root: bool) -> Finding {
    if root {
        Finding::new("privilege", Good, "root")
    } else {
        Finding::new(
            "privilege",
            Warning,
            "not root: KVM is not proved, and not all that listens can be named",
        )
        .mend("sudo gond doctor")
    }
}

fn service_manager(systemd: bool) -> Finding {
    if systemd {
        Finding::new("systemd", Good, "systemd runs this machine")
    } else {
        Finding::new(
            "systemd",
            Warning,
            "systemd does not run this machine: there are no units, and each role is started by hand",
        )
    }
}

impl Program {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::RabbitMq => "RabbitMQ",
            Self::Etcd => "etcd",
            Self::OpenVSwitch => "Open vSwitch",
            Self::Qemu => "QEMU",
            Self::Nftables => "nftables",
            Self::Docker => "Docker",
        }
    }
    /// Its package, on Debian 12 and on Ubuntu 22.04.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::RabbitMq => "rabbitmq-server",
            Self::Etcd => "etcd-server",
            Self::OpenVSwitch => "openvswitch-switch",
            Self::Qemu => "qemu-system-x86",
            Self::Nftables => "nftables",
            Self::Docker => "docker.io",
        }
    }
    /// The oldest that is known to work.
    const fn oldest(self) -> (u32, u32) {
        match self {
            Self::Postgres => (14, 0),
            // Ubuntu 22.04's.
            Self::RabbitMq => (3, 9),
            Self::Etcd => (3, 3),
            Self::OpenVSwitch => (2, 17),
            Self::Qemu => (6, 2),
            Self::Nftables => (1, 0),
            Self::Docker => (20, 10),
        }
    }
    /// What the specification names; distributions are behind it, and what they have is what we test with.
    const fn named(self) -> (u32, u32) {
        match self {
            Self::RabbitMq => (3, 12),
            Self::Etcd => (3, 5),
            Self::OpenVSwitch => (3, 0),
            Self::Docker => (24, 0),
            other => other.oldest(),
        }
    }
    /// Whether a server with these duties cannot be without it.
    #[must_use]
    pub const fn needed(self, duties: Duties) -> bool {
        match self {
            Self::Postgres | Self::RabbitMq | Self::Etcd => duties.control,
            Self::OpenVSwitch | Self::Qemu | Self::Nftables => duties.worker,
            Self::Docker => false,
        }
    }
}

fn version(installed: &Installed, duties: Duties) -> Option<Finding> {
    let program = installed.program;
    let needed = program.needed(duties);
    let (name, check) = (program.name(), "version");
    let apt = format!("apt-get install --no-install-recommends {}", program.package());
    Some(match installed.version {
        None if needed => Finding::new(check, Error, format!("{name} is not installed")).mend(apt),
        // Container instances alone need it.
        None if program == Program::Docker && duties.worker => {
            Finding::new(check, Note, "Docker is not installed: this node takes no container instances")
                .mend(apt)
        }
        None => return None,
        Some(v) if v < program.oldest() && (needed || program == Program::Docker) => {
            let (major, minor) = program.oldest();
            let severity = if needed { Error } else { Warning };
            Finding::new(check, severity, format!("{name} {}.{} is older than {major}.{minor}", v.0, v.1))
                .mend(apt)
        }
        Some(_) if !needed && program != Program::Docker => return None,
        Some(v) if v < program.named() => {
            let (major, minor) = program.named();
            Finding::new(
                check,
                Note,
                format!("{name} {}.{}: tested; the specification names {major}.{minor}", v.0, v.1),
            )
        }
        Some(v) => Finding::new(check, Good, format!("{name} {}.{}", v.0, v.1)),
    })
}

fn processors(cpus: u32) -> Finding {
    match cpus {
        0 | 1 => Finding::new("processors", Warning, "one processor: expect to wait"),
        n => Finding::new("processors", Good, format!("{n} processors")),
    }
}

fn memory(mib: u64, duties: Duties) -> Finding {
    // A control plane beside its PostgreSQL, RabbitMQ and etcd; a node beside one small guest.
    let least =
        if duties.control { 1700 } else { 900 } + if duties.control && duties.worker { 900 } else { 0 };
    let has = format!("{:.1} GiB of memory", mib as f64 / 1024.0);
    if mib < least {
        Finding::new("memory", Error, format!("{has}; at least {:.1} GiB are needed", least as f64 / 1024.0))
    } else if mib < least * 2 {
        Finding::new("memory", Warning, format!("{has}: enough to try it out"))
    } else {
        Finding::new("memory", Good, has)
    }
}

fn disk(path: &str, free_gib: u64) -> Finding {
    let has = format!("{free_gib} GiB free for {path}");
    match free_gib {
        0..2 => Finding::new("disk", Error, format!("{has}; at least 2 GiB are needed, 20 for real use"))
            .mend(format!("df -h {path}")),
        2..20 => Finding::new("disk", Warning, format!("{has}: enough to try it out")),
        _ => Finding::new("disk", Good, has),
    }
}

fn virtualisation(v: &Virtualisation) -> Finding {
    const SLOW: &str = "guests are emulated: slowly, and without being a security boundary";
    let check = "virtualisation";
    match v {
        Virtualisation::Proved(cpu) => {
            Finding::new(check, Good, format!("KVM works: a guest has booted (processor model {cpu})"))
        }
        Virtualisation::NoQemu(why) => Finding::new(check, Error, format!("no guest can run: {why}"))
            .mend("apt-get install --no-install-recommends qemu-system-x86"),
        Virtualisation::NoFlag => Finding::new(
            check,
            Warning,
            format!(
                "the processor does not offer virtualisation (no vmx or svm in /proc/cpuinfo): switch it on in the \
                 firmware (Intel VT-x, AMD SVM), or, if this is a virtual machine, let its host pass it on; until \
                 then {SLOW}"
            ),
        ),
        Virtualisation::NoDevice(module) => {
            Finding::new(check, Warning, format!("there is no /dev/kvm; until there is, {SLOW}"))
                .mend(format!("modprobe {module}"))
        }
        Virtualisation::NoKernel => Finding::new(
            check,
            Warning,
            "KVM is there but not proved, for there is no image to boot, nor to launch",
        )
        .mend("gond image build gon-linux"),
        Virtualisation::Failed(why) => {
            Finding::new(check, Warning, format!("KVM does not work here ({why}); {SLOW}"))
                .mend("dmesg | grep -i kvm")
        }
        Virtualisation::NotWanted => Finding::new(check, Note, format!("as configured, {SLOW}")),
    }
}

fn modules(missing: &[&str]) -> Finding {
    if missing.is_empty() {
        return Finding::new("modules", Good, "the kernel has what a node needs");
    }
    let list = missing.join(", ");
    let userspace = missing.contains(&"openvswitch");
    let severity = if missing.contains(&"tun") { Error } else { Warning };
    let what = if userspace {
        format!("the kernel lacks {list}: packets are switched in userspace, more slowly")
    } else {
        format!("the kernel lacks {list}")
    };
    let mut finding = Finding::new("modules", severity, what);
    for module in missing {
        finding = finding.mend(format!("modprobe {module}"));
    }
    finding
}

fn forward_policy(forward: &Forward) -> Finding {
    let check = "forwarding";
    if !forward.drops || forward.excepted {
        return Finding::new(check, Good, "the packet filter lets guests' traffic through");
    }
    if forward.docker {
        return Finding::new(
            check,
            Note,
            "Docker's packet filter drops what it does not know; the network agent makes an exception for guests",
        );
    }
    Finding::new(
        check,
        Error,
        "the chain FORWARD of iptables drops what it does not know: guests would have no outside",
    )
    .mend(format!("iptables -I FORWARD -i {EXTERNAL} -j ACCEPT"))
    .mend(format!("iptables -I FORWARD -o {EXTERNAL} -j ACCEPT"))
}

fn bridge_filter(on: bool) -> Finding {
    if on {
        Finding::new(
            "br_netfilter",
            Note,
            "frames on Linux bridges go through the packet filter (br_netfilter): it costs containers speed; guests' \
             traffic does not use such bridges",
        )
        .mend("sysctl -w net.bridge.bridge-nf-call-iptables=0")
    } else {
        Finding::new("br_netfilter", Good, "frames on bridges do not go through the packet filter")
    }
}

fn ip_forward(on: bool) -> Finding {
    if on {
        Finding::new("ip_forward", Good, "the kernel forwards IPv4")
    } else {
        // The network agent does it as well; a node that is being looked at before that is not broken.
        Finding::new(
            "ip_forward",
            Note,
            "the kernel does not forward IPv4 yet; the network agent switches it on",
        )
        .mend("sysctl -w net.ipv4.ip_forward=1")
    }
}

fn path(way: &Way, guest_mtu: u16, duties: Duties) -> Finding {
    let (check, server) = ("mtu", &way.server);
    let Some((device, device_mtu)) = &way.device else {
        return Finding::new(check, Error, format!("there is no route to {server}")).mend("ip route");
    };
    let Some(largest) = way.largest else {
        return Finding::new(
            check,
            Error,
            format!(
                "{server} does not answer over {device}: no packet arrives, or ICMP is dropped on the way"
            ),
        )
        .mend(format!("ping -c 3 {server}"));
    };
    if largest < 576 {
        return Finding::new(
            check,
            Error,
            format!("packets to {server} over {device} have only {largest} bytes"),
        );
    }
    let needs = u32::from(guest_mtu) + OVERLAY;
    if largest < *device_mtu {
        // A black hole: the device promises what the path does not keep.
        return Finding::new(
            check,
            Error,
            format!(
                "{device} says {device_mtu} bytes, but only {largest} arrive at {server} unfragmented: large packets \
                 would vanish"
            ),
        )
        .mend(format!("ip link set dev {device} mtu {largest}"));
    }
    if duties.worker && largest < needs {
        return Finding::new(
            check,
            Error,
            format!(
                "{largest} bytes fit on the way to {server}; guests are offered {guest_mtu}, which with the tunnel's \
                 {OVERLAY} is {needs}"
            ),
        )
        .mend(format!("ip link set dev {device} mtu {needs}    # if the network carries it, on all servers; else"))
        .mend(format!("sed -i 's/^mtu = .*/mtu = {}/' /etc/gon/gon.toml    # on all servers", largest - OVERLAY));
    }
    Finding::new(check, Good, format!("{largest} bytes to {server} over {device}, unfragmented"))
}

fn clock(clock: &Clock) -> Vec<Finding> {
    const CHRONY: &str = "apt-get install --no-install-recommends chrony";
    let mut all = Vec::new();
    all.push(match clock.synchronised {
        Some(true) => Finding::new("clock", Good, "the clock is kept"),
        Some(false) => Finding::new(
            "clock",
            Warning,
            "nobody keeps the clock: certificates and tokens become invalid when it runs away",
        )
        .mend(CHRONY),
        None => Finding::new("clock", Note, "it is not known whether somebody keeps the clock")
            .mend("timedatectl"),
    });
    for (server, offset) in &clock.offsets {
        // Whole seconds of a date are what is compared: two may be an artefact.
        let seconds = offset.unsigned_abs() / 1000;
        let way = if *offset > 0 { "ahead of" } else { "behind" };
        all.push(match seconds {
            0..=2 => Finding::new("clock", Good, format!("{server} has the same time")),
            3..=30 => {
                Finding::new("clock", Warning, format!("{server} is {seconds} s {way} us")).mend(CHRONY)
            }
            _ => Finding::new(
                "clock",
                Error,
                format!("{server} is {seconds} s {way} us: its certificates may not be valid here"),
            )
            .mend(format!("{CHRONY}    # on both"))
            .mend("chronyc makestep"),
        });
    }
    all
}

/// The programs that may hold one of our ports.
fn is_rightful(port: &Port, holder: &str) -> bool {
    match port.role {
        "postgresql" => holder.starts_with("postgres"),
        "rabbitmq" => holder.starts_with("beam"),
        "etcd" => holder == "etcd",
        // The names of threads of ours begin so, too.
        _ => holder.starts_with("gond"),
    }
}

fn port(port: &Port) -> Finding {
    let Port { number, role, holder } = port;
    match holder {
        None => Finding::new("port", Good, format!("port {number} is free for {role}")),
        Some(holder) if is_rightful(port, holder) => {
            Finding::new("port", Good, format!("{role} listens on port {number}"))
        }
        Some(holder) if holder == "?" => {
            Finding::new("port", Note, format!("somebody listens on port {number} ({role}'s)"))
        }
        Some(holder) => {
            Finding::new("port", Error, format!("port {number}, which {role} needs, is {holder}'s"))
                .mend(format!("ss -ltnp 'sport = :{number}'"))
        }
    }
}

fn firewall(ports: &[Port]) -> Finding {
    let mut numbers: Vec<String> = ports.iter().map(|p| p.number.to_string()).collect();
    numbers.dedup();
    Finding::new("firewall", Warning, "ufw is on: let the site's servers reach each other")
        .mend(format!("ufw allow from SITE to any port {} proto tcp", numbers.join(",")))
        .mend("ufw allow from SITE to any port 6081 proto udp    # tunnels")
        .mend("ufw route allow in on gon-ext && ufw route allow out on gon-ext")
}

fn names(names: &Names, duties: Duties) -> Vec<Finding> {
    let check = "name";
    let mut all = Vec::new();
    let host = &names.hostname;
    if host.is_empty() || host == "localhost" || host == "localhost.localdomain" {
        all.push(
            Finding::new(check, Error, format!("this server is called '{host}': it needs a name of its own"))
                .mend("hostnamectl set-hostname NAME"),
        );
    } else if names.resolves_to.is_empty() {
        all.push(
            Finding::new(check, Warning, format!("'{host}' does not resolve, not even here"))
                .mend(format!("echo '127.0.1.1 {host}' >> /etc/hosts")),
        );
    } else if names.resolves_to.iter().all(|a| a.is_loopback() || names.addresses.contains(a)) {
        all.push(Finding::new(check, Good, format!("this server is '{host}'")));
    } else {
        let elsewhere: Vec<String> = names.resolves_to.iter().map(ToString::to_string).collect();
        let severity = if duties.control { Error } else { Warning };
        all.push(
            Finding::new(
                check,
                severity,
                format!("'{host}' resolves to {}, which is not this server", elsewhere.join(", ")),
            )
            .mend(format!("grep -n '{host}' /etc/hosts; hostname -I")),
        );
    }
    all.extend(names.unknown.iter().map(|name| {
        Finding::new(check, Error, format!("'{name}' does not resolve"))
            .mend(format!("echo 'ADDRESS {name}' >> /etc/hosts"))
    }));
    all
}

#[cfg(test)]
mod tests;
