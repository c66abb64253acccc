//! Collects what the verdicts are about. Each probe is thin; one that fails knows nothing, which is a fact, too.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::listeners::holders;
use super::versions::installed;
use super::{Clock, Facts, Forward, Names, Port, Program, Question, Virtualisation, Way};
use crate::host;
use crate::image::Manifest;
use crate::netlink::Netlink;
use crate::qemu::{Accelerator, Kernel, probe, prove_kvm};
use crate::run::{Cmd, run};

/// What a node's kernel must have, and under which name it shows when it is loaded or built in.
const MODULES: [&str; 5] = ["tun", "openvswitch", "geneve", "nf_conntrack", "nf_tables"];
/// IPv4 and ICMP headers around what `ping` sends.
const PING_HEADERS: u32 = 28;
/// The smallest packet worth trying.
const SMALLEST: u32 = 576;

pub(super) async fn facts(question: &Question) -> Facts {
    let machine = host::facts().ok();
    let listening = tokio::task::spawn_blocking(|| holders(Path::new("/proc"))).await.unwrap_or_default();
    let ports = question.ports.iter().map(|(number, role)| Port {
        number: *number,
        role,
        holder: listening.get(number).cloned(),
    });
    let programs = [
        Program::Postgres,
        Program::RabbitMq,
        Program::Etcd,
        Program::OpenVSwitch,
        Program::Qemu,
        Program::Nftables,
        Program::Docker,
    ];
    let (mut versions, mut paths) = (vec![], vec![]);
    for program in programs {
        versions.push(installed(program).await);
    }
    for server in &question.servers {
        paths.push(way(server).await);
    }
    let worker = question.duties.worker;
    Facts {
        duties: question.duties,
        root: rustix::process::geteuid().is_root(),
        systemd: Path::new("/run/systemd/system").is_dir(),
        cpus: machine.as_ref().map_or(0, |m| m.cpus),
        memory_mib: machine.as_ref().map_or(0, |m| m.memory_mib),
        disk: (question.data_dir.clone(), free_gib(&question.data_dir)),
        virtualisation: if worker { virtualisation(question).await } else { Virtualisation::NotWanted },
        paths,
        guest_mtu: question.guest_mtu,
        clock: Clock { synchronised: synchronised().await, offsets: vec![] },
        ports: ports.collect(),
        forward: if worker { forward().await } else { None },
        bridge_filter: flag("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        ip_forward: flag("/proc/sys/net/ipv4/ip_forward"),
        ufw: std::fs::read_to_string("/etc/ufw/ufw.conf")
            .is_ok_and(|text| text.lines().any(|l| l.trim().eq_ignore_ascii_case("ENABLED=yes"))),
        missing_modules: if worker { missing_modules().await } else { vec![] },
        versions,
        names: names(machine.map(|m| m.hostname).unwrap_or_default(), &question.servers).await,
    }
}

/// Room on the file system that will hold a directory that may not be there yet.
fn free_gib(path: &Path) -> u64 {
    path.ancestors().find_map(|p| host::free_bytes(p).ok()).unwrap_or(0) >> 30
}

fn flag(path: &str) -> Option<bool> {
    std::fs::read_to_string(path).ok().map(|text| text.trim() != "0")
}

async fn virtualisation(question: &Question) -> Virtualisation {
    if question.emulate {
        return Virtualisation::NotWanted;
    }
    let capabilities = match probe(None).await {
        Ok(capabilities) => capabilities,
        Err(error) => return Virtualisation::NoQemu(error.to_string()),
    };
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| {
        let mut flags = processor.lines().filter(|l| l.starts_with("flags"));
        flags.next().is_some_and(|l| l.split_ascii_whitespace().any(|f| f == flag))
    };
    let module = if has("svm") { Some("kvm-amd") } else { has("vmx").then_some("kvm-intel") };
    if !Path::new("/dev/kvm").exists() {
        return module.map_or(Virtualisation::NoFlag, Virtualisation::NoDevice);
    }
    let images = std::fs::read_dir(&question.images_dir).into_iter().flatten().flatten();
    let kernel = images.map(|entry| entry.path()).find_map(|dir| {
        let manifest = Manifest::load(&dir).ok()?;
        Some(Kernel { kernel: manifest.kernel_path(&dir), cmdline: manifest.kernel_cmdline(false) })
    });
    let Some(kernel) = kernel else { return Virtualisation::NoKernel };
    // Beside, not in, the agent's own: it may be proving at this very moment.
    let work = std::env::temp_dir().join(format!("gon-doctor-{}", std::process::id()));
    match prove_kvm(&capabilities, &kernel, &work).await {
        Ok(Accelerator::Kvm { cpu }) => Virtualisation::Proved(cpu),
        Ok(Accelerator::Tcg) => Virtualisation::Failed("it fell back to emulation".to_owned()),
        Err(error) => {
            let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
            Virtualisation::Failed(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
        }
    }
}

/// Modules that are neither there nor can be had.
async fn missing_modules() -> Vec<&'static str> {
    let mut missing = vec![];
    for module in MODULES {
        let there = Path::new("/sys/module").join(module).exists()
            || run(Cmd::new("modprobe").args(["--dry-run", "--quiet", module])).await.is_ok()
            || built_in(module);
        if !there {
            missing.push(module);
        }
    }
    missing
}

/// A part without parameters that is built in shows nowhere but in what it does.
fn built_in(module: &str) -> bool {
    match module {
        "tun" => Path::new("/dev/net/tun").exists(),
        "nf_conntrack" => Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists(),
        _ => false,
    }
}

/// Whether the kernel's clock is disciplined, as the kernel says.
async fn synchronised() -> Option<bool> {
    let asked = run(Cmd::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"])).await;
    match asked.ok()?.text().trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

async fn forward() -> Option<Forward> {
    let chain = run(Cmd::new("iptables").args(["--wait", "5", "--list-rules", "FORWARD"])).await.ok()?.text();
    let user = run(Cmd::new("iptables").args(["--wait", "5", "--list-rules", "DOCKER-USER"])).await;
    Some(read_forward(&chain, &user.map(|o| o.text()).unwrap_or_default()))
}

/// The rules of FORWARD and of DOCKER-USER, as `iptables -S` lists them.
fn read_forward(forward: &str, user: &str) -> Forward {
    let ours = |direction: &str| {
        let rule = format!("{direction} gon-ext ");
        forward.lines().chain(user.lines()).any(|l| l.contains(&rule) && l.ends_with("-j ACCEPT"))
    };
    Forward {
        drops: forward.lines().any(|l| l.trim() == "-P FORWARD DROP"),
        docker: forward.contains("DOCKER"),
        excepted: ours("-i") && ours("-o"),
    }
}

/// The way to a server: by which device, and the largest packet that arrives whole.
async fn way(server: &str) -> Way {
    let none = Way { server: server.to_owned(), device: None, largest: None };
    let Some(address) = resolve(server).await.into_iter().find(IpAddr::is_ipv4) else { return none };
    let routed = run(Cmd::new("ip").args(["-json", "route", "get"]).arg(address.to_string())).await;
    let device = routed.ok().and_then(|o| read_route(&o.text()));
    let Some(device) = device else { return none };
    // Not from sysfs, which may be another network namespace's.
    let link = match Netlink::open() {
        Ok(netlink) => netlink.link(&device).await.ok().flatten(),
        Err(_) => None,
    };
    let Some(mtu) = link.map(|link| link.mtu) else { return none };
    let mut largest = None;
    if passes(address, SMALLEST.min(mtu)).await {
        // Loopback promises 64 KiB, which IPv4 cannot have in one packet.
        let (mut good, mut bad) = (SMALLEST.min(mtu), mtu.min(65_535) + 1);
        if passes(address, bad - 1).await {
            good = bad - 1;
        }
        while bad - good > 1 && good != bad - 1 {
            let middle = good + (bad - good) / 2;
            if passes(address, middle).await { good = middle } else { bad = middle }
        }
        largest = Some(good);
    }
    Way { server: server.to_owned(), device: Some((device, mtu)), largest }
}

/// Whether a packet of that size gets there and back without being fragmented; two are sent, for one may be lost.
async fn passes(address: IpAddr, size: u32) -> bool {
    let ping = Cmd::new("ping")
        .args(["-n", "-q", "-c", "2", "-i", "0.2", "-W", "0.5", "-M", "do", "-s"])
        .arg(size.saturating_sub(PING_HEADERS).to_string())
        .arg(address.to_string())
        .deadline(Duration::from_secs(10));
    run(ping).await.is_ok()
}

/// The device in the answer of `ip -json route get`.
fn read_route(json: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    Some(value.get(0)?.get("dev")?.as_str()?.to_owned())
}

async fn resolve(name: &str) -> Vec<IpAddr> {
    let found = tokio::time::timeout(Duration::from_secs(10), tokio::net::lookup_host((name, 0))).await;
    let mut all: Vec<IpAddr> = match found {
        Ok(Ok(found)) => found.map(|a| a.ip()).collect(),
        _ => vec![],
    };
    all.sort_unstable();
    all.dedup();
    all
}

async fn names(hostname: String, servers: &[String]) -> Names {
    let mut unknown = vec![];
    for server in servers {
        if resolve(server).await.is_empty() {
            unknown.push(server.clone());
        }
    }
    let resolves_to = if hostname.is_empty() { vec![] } else { resolve(&hostname).await };
    Names { resolves_to, addresses: addresses(), unknown, hostname }
}

/// The addresses of this server, loopback aside.
fn addresses() -> Vec<IpAddr> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return vec![] };
    let ip = |address: nix::ifaddrs::InterfaceAddress| {
        let address = address.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    all.filter_map(ip).filter(|a| !a.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_policy_is_seen_and_so_is_what_excepts_us() {
        let docker = "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n";
        assert_eq!(read_forward(docker, ""), Forward { drops: true, docker: true, excepted: false });
        let user =
            "-N DOCKER-USER\n-A DOCKER-USER -i gon-ext -j ACCEPT\n-A DOCKER-USER -o gon-ext -j ACCEPT\n";
        assert!(read_forward(docker, user).excepted);
        assert!(!read_forward(docker, "-A DOCKER-USER -i gon-ext -j ACCEPT\n").excepted);
        assert!(!read_forward("-P FORWARD ACCEPT\n", "").drops);
    }

    #[test]
    fn the_device_of_a_route_is_read() {
        let json =
            r#"[{"dst":"192.0.2.9","gateway":"192.0.2.1","dev":"eth0","prefsrc":"192.0.2.2","flags":[]}]"#;
        assert_eq!(read_route(json).as_deref(), Some("eth0"));
        assert_eq!(read_route("[{}]"), None);
        assert_eq!(read_route("RTNETLINK answers: Network is unreachable"), None);
    }
}
