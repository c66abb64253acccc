#!/usr/bin/env python3
"""Three servers, installed from the packages as the README tells a user; what they prove. Run by scripts/lab.sh, as the
first process of namespaces of its own: whatever is started here ends with it."""

import argparse
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from machines import BRIDGE, Failed, Server, make_link, passed, run, say, step, together, until  # noqa: E402
from site_api import Api, Cloud  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAB = f"{ROOT}/target/lab"
POOL = "198.51.100.0/24"
CONTROL = {"network-controller": 8081, "instance-manager": 8082, "api-server": 8080}
WORKER = {"network-agent": 9091, "hypervisor-agent": 9090, "storage-agent": 9093, "container-agent": 9092}
# A guest inside an emulated server, and everything on two processors with whatever else runs there.
BOOT = 420

proofs = []


def proved(text):
    proofs.append(text)
    say(f"{passed()}    ▸ {text}")


def install(server, packages, debs, beside=()):
    """What the README has somebody type. `beside`: what apt would recommend, which these servers' apt does not take."""
    files = [f for p in packages for f in glob.glob(f"{debs}/{p}_*.deb")]
    if len(files) != len(packages):
        raise Failed(f"{debs} has not all of {packages}: make deb")
    server.send(files)
    said = server.do("cd /opt/packages && DEBIAN_FRONTEND=noninteractive apt-get install -y ./*.deb "
                     f"{' '.join(beside)} </dev/null 2>&1", 1500)
    running = server.do("systemctl list-units --no-legend --plain 'gcp-*.service' | grep -c ' running ' || :")
    if running != "0":
        raise Failed(f"{server.name}: the package started something:\n{running}")
    return said


def active(server, roles):
    """Every service runs, and says that it is ready."""
    for role in roles:
        until(f"{server.name}: gcp-{role} is active", 180,
              lambda role=role: server.do(f"systemctl is-active gcp-{role} || :", 30) == "active", 2)


def ready(server, roles, ca, deadline=180):
    """Readiness, from outside over TLS; what is not ready says why."""
    def ask(role, port):
        done = run(["curl", "-sS", "--max-time", "10", "--cacert", ca, "-w", "\n%{http_code}",
                    f"https://{server.address}:{port}/readyz"], 20, check=False).stdout
        if not done.rstrip().endswith("\n200"):
            raise Failed(f"{role}: {done[-800:]}")
        return True
    for role, port in roles.items():
        until(f"{server.name}: {role} is ready", deadline, lambda r=role, p=port: ask(r, p), 2)


def new_token(control):
    """Another join token; a database that is busy is asked again."""
    return until("a join token", 120, lambda: control.do("gond admin join-token").split()[-1], 3)


def guests(server):
    """Process numbers of the guests of a server."""
    said = server.do("pgrep -x 'qemu-system-x86' || pgrep -f '^[^ ]*qemu-system-x86_64 ' || :", 30)
    return sorted(said.split())


class Pings:
    """One ping every fifth of a second, and what became of them."""

    def __init__(self, address):
        self.process = subprocess.Popen(["ping", "-n", "-q", "-i", "0.5", "-W", "5", address],
                                        stdout=subprocess.PIPE, text=True)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=20)[0]
        sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", said).groups()
        return int(sent), int(received)


def main(arguments):
    debs, where = arguments.debs, arguments.run
    key = f"{where}/guest"
    control, *workers = servers = [
        Server(n, name, LAB, where) for n, name in ((1, "control"), (2, "worker-1"), (3, "worker-2"))]
    one, two = workers
    main.servers = servers

    if arguments.attach < 1:
        with step("three stock Debian 12 servers start"):
            make_link()
            run(["ip", "route", "add", POOL, "dev", BRIDGE])
            for server in servers:
                server.boot()
            together({s.name: s.up for s in servers})
        proved(f"three servers, kernel {control.do('uname -r')}, systemd is process 1")

        with step("packages are copied and installed with apt"):
            node = ["gon-cloud", "gon-cloud-node", "gon-images"]
            together({
                "control": lambda: install(control, ["gon-cloud", "gon-cloud-control"], debs),
                "one": lambda: install(one, node, debs, ["docker.io"]),
                "two": lambda: install(two, node, debs, ["docker.io"]),
            })
    version = control.do("dpkg-query -W -f '${Version}' gon-cloud")
    proved(f"gon-cloud {version} installs with apt on all three, and starts nothing by itself")

    # Where the README's two commands end, a site begins; after --attach with a number, later.
    ca = f"{where}/ca.crt"
    token = ""
    if arguments.attach < 2:
        with step("server 1: gond admin init"):
            said = control.show(f"gond admin init --public-pool {POOL}")
            found = re.search(r"gond join (gonjoin1\.\S+)", said)
            if not found:
                raise Failed(f"init printed no token:\n{said}")
            token = found.group(1)
    with open(ca, "w", encoding="utf-8") as file:
        file.write(control.do("cat /var/lib/gon/ca.crt") + "\n")
    if arguments.attach < 2:
        active(control, CONTROL)
        ready(control, CONTROL, ca)
        proved("one command makes the control plane: three services active and ready over TLS, on PostgreSQL, RabbitMQ, "
               "etcd")
        with step("server 1: gond admin init once more"):
            again = control.show(f"gond admin init --public-pool {POOL}")
            if len(re.findall("already so|kept as it is|they run", again)) < 7:
                raise Failed(f"it did more than look:\n{again}")
            ready(control, CONTROL, ca)
        proved("a second init changes nothing")

    if arguments.attach < 3:
        with step("worker 1: gond join"):
            token = token or new_token(control)
            one.show(f"gond join {token}")
        with step("worker 2: a token that was used is refused, a new one is not"):
            refused = two.do(f"gond join {token} 2>&1 && echo LET-IN", 300, check=False)
            if "this token is not good" not in refused or two.do("test -e /etc/gon/gon.toml && echo there || :") == "there":
                raise Failed(f"the first token let worker 2 in, too:\n{refused}")
            second = new_token(control)
            two.show(f"gond join {second}")
        for server in workers:
            active(server, WORKER)
        proved("one command makes each worker a node; a join token is good for one server only")

    admin = control.do("cat /var/lib/gon/admin.json")
    admin = json.loads(admin)
    api = Api(control.address, ca, admin["username"], admin["password"])
    with step("both nodes are ready"):
        def both():
            found = {n["name"]: n for n in api.items("/nodes")}
            wanted = [found.get(s.name) for s in workers]
            if not all(n and n["state"] == "ready" for n in wanted):
                raise Failed(str({k: v["state"] for k, v in found.items()}))
            return wanted
        nodes = until("both nodes are ready", 240, both, 2)
        for server in workers:
            ready(server, WORKER, ca)
    datapaths = {n["ovs_datapath"] for n in nodes}
    accelerators = {n["accelerator"] for n in nodes}
    proved(f"API over TLS: both nodes ready; Open vSwitch datapath: {', '.join(sorted(datapaths))}; "
           f"guests on: {', '.join(sorted(accelerators))}")
    if datapaths != {"system"}:
        raise Failed(f"not the kernel's datapath: {datapaths}")

    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guest", "-f", key])
    cloud = Cloud(api, key, BOOT)
    placed = {}
    with step("instances on both workers"):
        cloud.network()
        launched = []
        for number in range(4):
            launched.append(cloud.launch(f"guest-{number}"))
            now = until("it has a node", 60, lambda: cloud.instance(launched[-1]) if
                        cloud.instance(launched[-1])["worker_node"] else None)
            placed.setdefault(now["worker_node"], launched[-1])
            if len(placed) == 2:
                break
        if len(placed) != 2:
            raise Failed(f"all instances are on {list(placed)}")
        here = {name: cloud.running(which) for name, which in placed.items()}
    proved("an instance runs on each worker: " + ", ".join(f"{i['id']} on {n}" for n, i in sorted(here.items())))

    with step("ping and SSH from outside"):
        for name, instance in here.items():
            try:
                cloud.answers_ping(instance["public_ip"])
                cloud.answers_ssh(instance["public_ip"])
            except Failed:
                say(f"console of {instance['id']} on {name}:\n{cloud.console(instance['id'])}")
                raise
    proved("both answer ping and SSH at their public addresses, from beyond the servers' link: "
           + ", ".join(i["public_ip"] for i in here.values()))

    with step("across nodes inside the VPC"):
        a, b = here["worker-1"], here["worker-2"]
        for source, target in ((a, b), (b, a)):
            cloud.ssh(source["public_ip"], f"ping -c 3 -W 5 {target['private_ip']}")
            said = cloud.ssh(source["public_ip"], f"nc -w 20 {target['private_ip']} 22 </dev/null | head -c 4")
            if said != "SSH-":
                raise Failed(f"TCP from {source['private_ip']} to {target['private_ip']}: '{said}'")
        tunnels = one.do("ovs-vsctl --columns=type --bare find interface type=geneve | head -n 1", 30)
    proved(f"they reach each other by private address, ICMP and TCP, both ways, through a tunnel ({tunnels or 'no geneve?'})")

    before = {s.name: guests(s) for s in workers}
    with step("every service is killed (SIGKILL), control plane and agents"):
        pings = Pings(a["public_ip"])
        for server, roles in ((control, CONTROL), (one, WORKER), (two, WORKER)):
            for role in roles:
                server.do(f"systemctl kill --signal=KILL --kill-whom=main gcp-{role}", 60)
        time.sleep(5)
        for server, roles in ((control, CONTROL), (one, WORKER), (two, WORKER)):
            active(server, roles)
            ready(server, roles, ca)
        sent, received = pings.end()
    after = {s.name: guests(s) for s in workers}
    if before != after or not all(before.values()):
        raise Failed(f"guests' processes were {before}, are {after}")
    if sent - received > max(2, sent // 50):
        raise Failed(f"{sent - received} of {sent} pings were lost")
    proved(f"all eleven services killed: systemd brought them back, all ready, guests' processes the same, "
           f"{received} of {sent} pings answered meanwhile")

    with step("PostgreSQL, RabbitMQ and etcd are killed"):
        for unit in ("postgresql@*-main", "rabbitmq-server", "etcd"):
            control.do(f"systemctl kill --signal=KILL '{unit}' || :; sleep 1; "
                       f"systemctl start postgresql rabbitmq-server etcd; "
                       f"pg_lsclusters --no-header | while read -r v n _; do systemctl start postgresql@$v-$n; done", 240)
        ready(control, CONTROL, ca, 240)
    proved("the same for PostgreSQL, RabbitMQ and etcd")

    with step("worker 2: the reset button, while the control plane is off"):
        control.do("systemctl stop gcp-control.target gcp-api-server gcp-instance-manager gcp-network-controller", 120)
        boot = two.do("cat /proc/sys/kernel/random/boot_id")
        two.reset()
        two.up()
        if two.do("cat /proc/sys/kernel/random/boot_id") == boot:
            raise Failed("worker 2 did not start again")
        cloud.answers_ping(b["public_ip"])
        cloud.answers_ssh(b["public_ip"])
    proved("worker 2 was reset with the control plane off: its instance came back by itself and answers ping and SSH")
    with step("the control plane comes back"):
        control.do("systemctl start gcp-network-controller gcp-instance-manager gcp-api-server", 240)
        ready(control, CONTROL, ca)
        until("both nodes are ready", 240, both, 2)
        now = cloud.running(b["id"])
        cloud.ssh(a["public_ip"], f"ping -c 3 -W 5 {b['private_ip']}")
    proved(f"the control plane is back: {now['id']} is {now['state']}, and reached across nodes again")

    with step("a worker falls silent"):
        one.do("systemctl stop gcp-hypervisor-agent", 60)
        begin = time.monotonic()
        until("its node is unknown", 60,
              lambda: any(n["name"] == "worker-1" and n["state"] == "unknown" for n in api.items("/nodes")), 0.5)
        took = time.monotonic() - begin
        state = cloud.instance(a["id"])["state"]
        one.do("systemctl start gcp-hypervisor-agent", 120)
        until("both nodes are ready", 120, both, 1)
    if state != "unknown":
        raise Failed(f"the instance of a silent node is '{state}'")
    proved(f"a node that is silent is 'unknown' after {took:.0f} s, its instance too; both come back")

    with step("the packages are installed once more, as an upgrade does"):
        for server in servers:
            server.do("cd /opt/packages && DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall ./*.deb "
                      "</dev/null 2>&1", 1500)
        for server, roles in ((control, CONTROL), (one, WORKER), (two, WORKER)):
            active(server, roles)
            ready(server, roles, ca)
    if guests(one) != before["worker-1"]:
        raise Failed("a guest was started again by an upgrade")
    proved("packages replaced under running services: all ready, the guest of worker 1 is the same process")

    with step("LVM on a worker"):
        one.do("DEBIAN_FRONTEND=noninteractive apt-get install -y lvm2 thin-provisioning-tools </dev/null 2>&1", 600)
        said = one.do("""exec 2>/dev/null
truncate -s 1G /var/tmp/lvm.raw
device=$(losetup --find --show /var/tmp/lvm.raw)
trap 'vgchange -qq -an lab; losetup -d "$device"; rm -f /var/tmp/lvm.raw' EXIT
vgcreate -qq lab "$device"; lvcreate -qq --type thin-pool -L 512M -n pool lab; lvcreate -qq -V 400M --thinpool lab/pool -n volume
mke2fs -q -L before /dev/lab/volume
lvcreate -qq -s -kn -n kept lab/volume
dd if=/dev/urandom of=/dev/lab/volume bs=1M count=8 oflag=direct status=none
e2label /dev/lab/kept
e2label /dev/lab/volume 2>/dev/null && echo "not written over" || :
lvs --noheadings -o lv_name,pool_lv,origin lab | tr -s ' '""", 300)
    if not said.startswith("before\n kept pool volume"):
        raise Failed(f"LVM: {said}")
    proved("LVM works here: a thin pool, a thin volume, and a snapshot that keeps what was written over (for volumes to come)")

    with step("instances are terminated; worker 2 leaves"):
        for which in launched:
            api.call("DELETE", f"/instances/{which}")
        for which in launched:
            until(f"{which} ends", BOOT, lambda w=which: cloud.instance(w)["state"] == "terminated", 2)
        two.do("gond admin uninstall --yes --remove-data 2>&1", 300)
        left = two.do("ls -d /var/lib/gon /etc/gon/gon.toml 2>/dev/null || :; ip -br link | grep gon || :; "
                      "ovs-vsctl list-br; nft list tables | grep gon || :; pgrep -a gond || :; pgrep -a qemu || :; iptables -S | grep gon || :")
        if left:
            raise Failed(f"worker 2 still has:\n{left}")
    proved("terminated instances leave; 'gond admin uninstall' leaves no process, bridge, rule or file on worker 2")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--debs", default=f"{ROOT}/target/deb")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--attach", type=int, default=0, help="to what --keep left: 1 installed, 2 initialised, 3 joined")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begin, rc = time.monotonic(), 1
    try:
        main(arguments)
        rc = 0
    except (Failed, KeyboardInterrupt, SystemExit) as error:
        say(f"\n{passed()}  FAILED: {error}")
        failed = f"{LAB}/failed"
        shutil.rmtree(failed, ignore_errors=True)
        for server in getattr(main, "servers", []):
            server.logs(failed)
        say(f"The servers' logs are in {failed}.")
        if arguments.keep:
            children = " ".join(str(s.process.pid) for s in main.servers if s.process)
            say(f"The servers stay up (processes {children} in here, files in {arguments.run}). Ctrl-C ends it.")
            try:
                signal.pause()
            except (KeyboardInterrupt, SystemExit):
                pass
    say(f"\nProved, in {time.monotonic() - begin:.0f} s:" if rc == 0 else "\nProved before that:")
    for text in proofs:
        say(f"  ▸ {text}")
    sys.exit(rc)
