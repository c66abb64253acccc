"""The lab's servers: virtual machines on one link, in namespaces that end with us, and their shells."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time

OUTSIDE = "121.36.55.254"
BRIDGE = "lab0"
BEGIN = time.monotonic()


class Failed(Exception):
    """A check that did not hold, or a command that did not do."""


def say(text):
    print(text, flush=True)


def passed():
    return f"{time.monotonic() - BEGIN:6.0f} s"


class step:
    """Shows what is done and how long it took."""

    def __init__(self, text):
        self.text = text

    def __enter__(self):
        self.begin = time.monotonic()
        say(f"{passed()}  … {self.text}")

    def __exit__(self, kind, error, _):
        took = time.monotonic() - self.begin
        if kind is None:
            say(f"{passed()}  ✓ {self.text}  {took:.1f} s")
        else:
            say(f"{passed()}  ✗ {self.text}  {took:.1f} s: {error}")


def run(args, deadline=60, text=None, check=True):
    """Runs a command; its output, standard error included."""
    try:
        done = subprocess.run(args, input=text, text=True, errors="replace", timeout=deadline,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"")
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise Failed(f"{shlex.join(args)[:200]} took more than {deadline} s; it said:\n{said[-3000:]}") from None
    if check and done.returncode != 0:
        raise Failed(f"{shlex.join(args)[:200]} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done


def until(what, deadline, look, pause=1.0):
    """Looks until there is something; what it was. An error is looked at again, too."""
    end, last = time.monotonic() + deadline, None
    while True:
        try:
            found = look()
            if found:
                return found
            last = found
        except (Failed, OSError, ValueError, KeyError) as error:
            last = error
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {deadline} s (last: {str(last)[-1500:]})")
        time.sleep(pause)


def together(work):
    """Runs functions at once; fails with the first failure."""
    results, errors = {}, []

    def one(key, function):
        try:
            results[key] = function()
        except BaseException as error:  # noqa: BLE001 — carried to whoever waits
            errors.append(error)

    threads = [threading.Thread(target=one, args=item, daemon=True) for item in work.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def make_link():
    """The link of the site, and the world beyond it: us."""
    run(["ip", "link", "set", "lo", "up"])
    run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "addr", "add", f"{OUTSIDE}/24", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])


class Server:
    """One of them."""

    def __init__(self, number, name, lab, where):
        self.number, self.name, self.lab, self.where = number, name, lab, where
        self.address = f"121.36.55.{number}"
        self.process = None

    def boot(self):
        tap = f"lab-{self.number}"
        run(["ip", "tuntap", "add", tap, "mode", "tap"])
        run(["ip", "link", "set", tap, "master", BRIDGE, "up"])
        args = [
            "qemu-system-x86_64", "-name", self.name, "-nodefaults", "-display", "none",
            # The machine's own KVM may hang a guest for good (testbed): emulation it is, and KVM inside of it.
            "-M", "q35", "-accel", "tcg,thread=multi,tb-size=384", "-cpu", "max,+svm", "-smp", "2", "-m", "2048",
            "-kernel", f"{self.lab}/vmlinuz", "-initrd", f"{self.lab}/initrd.img",
            "-append", f"console=ttyS0 root=/dev/vda rw quiet net.ifnames=0 systemd.hostname={self.name} panic=-1",
            "-drive", f"file={self.lab}/server.raw,format=raw,if=virtio,snapshot=on,cache=unsafe,discard=unmap",
            "-netdev", f"tap,id=link,ifname={tap},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=link,mac=52:54:00:6c:61:0{self.number}",
            "-device", "virtio-rng-pci", "-serial", f"file:{self.where}/{self.name}.console",
            "-qmp", f"unix:{self.where}/{self.name}.qmp,server=on,wait=off",
        ]
        self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def reset(self):
        """The reset button."""
        with socket.socket(socket.AF_UNIX) as qmp:
            qmp.settimeout(20)
            qmp.connect(f"{self.where}/{self.name}.qmp")
            stream = qmp.makefile("rw")
            stream.readline()
            for command in ("qmp_capabilities", "system_reset"):
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                stream.readline()
        # The way in was over a connection that does not know yet.
        run(["ssh", *self.options(), "-O", "exit", f"root@{self.address}"], check=False)

    def options(self):
        return [
            "-i", f"{self.lab}/id_ed25519", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10",
            "-o", "ServerAliveCountMax=12", "-o", "ControlMaster=auto", "-o", "ControlPersist=600",
            "-o", f"ControlPath={self.where}/{self.number}.ssh",
        ]

    def do(self, script, deadline=120, check=True):
        """Runs a script of the shell; what it said."""
        if self.process and self.process.poll() is not None:
            raise Failed(f"{self.name}: QEMU ended: {self.process.stderr.read()[-1000:]}")
        done = run(["ssh", *self.options(), f"root@{self.address}", "bash -seu -o pipefail"], deadline,
                   script + "\n", check)
        return done.stdout.strip()

    def show(self, command, deadline=900):
        """Runs a command that talks, showing what it says as it comes (but no secret); all of it."""
        process = subprocess.Popen(["ssh", *self.options(), f"root@{self.address}", f"{command} </dev/null 2>&1"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, errors="replace")
        watch = threading.Timer(deadline, process.kill)
        watch.start()
        said = []
        try:
            for line in process.stdout:
                said.append(line)
                shown = re.sub(r"gonjoin1\.\S+", "gonjoin1.…", re.sub(r"(Login +\S+ / )\S+", r"\1…", line.rstrip()))
                if shown:
                    say(f"{passed()}      {self.name}| {shown}")
            code = process.wait()
        finally:
            watch.cancel()
        if code != 0:
            raise Failed(f"{self.name}: {command[:60]} ended with {code} (-9: after {deadline} s)")
        return "".join(said)

    def up(self, deadline=420):
        until(f"{self.name} answers SSH", deadline, lambda: self.do("echo up", 30) == "up", 2)
        until(f"{self.name} has started", deadline,
              lambda: self.do("systemctl is-system-running || :", 30) in ("running", "degraded"), 2)

    def send(self, files, directory="/opt/packages"):
        names = [os.path.basename(f) for f in files]
        with subprocess.Popen(["tar", "-C", os.path.dirname(files[0]), "-cf", "-", *names],
                              stdout=subprocess.PIPE) as tar:
            done = subprocess.run(["ssh", *self.options(), f"root@{self.address}",
                                   f"mkdir -p {directory} && tar -C {directory} --no-same-owner -xf -"],
                                  stdin=tar.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        if done.returncode != 0:
            raise Failed(f"{self.name}: the packages did not arrive: {done.stdout.decode(errors='replace')}")

    def logs(self, directory):
        """Everything somebody would look at first."""
        os.makedirs(directory, exist_ok=True)
        script = """set +eu
systemctl --no-pager --failed; echo; systemctl --no-pager status 'gcp-*' | head -n 300; echo
cat /etc/gon/gon.toml; ip -br addr; ip route; ip neigh show proxy; ovs-vsctl show; nft list ruleset | head -n 150
ovs-ofctl -O OpenFlow15 dump-flows gon-int 2>&1 | head -n 400; ps axf | head -n 250; free -m; df -h; uptime
journalctl --no-pager -o short-precise -u 'gcp-*' -n 1500; journalctl --no-pager -p warning -n 300; dmesg | tail -n 100"""
        try:
            text = self.do(script, 180, check=False)
        except Exception as error:  # noqa: BLE001 — as much as there is
            text = f"no way in: {error}"
        with open(f"{directory}/{self.name}.log", "w", encoding="utf-8") as file:
            file.write(text)
        try:
            with open(f"{self.where}/{self.name}.console", encoding="utf-8", errors="replace") as console:
                tail = console.read()[-100_000:]
            with open(f"{directory}/{self.name}.console", "w", encoding="utf-8") as file:
                file.write(tail)
        except OSError as error:
            print(error, file=sys.stderr)
