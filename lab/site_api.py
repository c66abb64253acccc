"""The site as its users see it, from outside: REST over TLS, ping, SSH."""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request

from machines import Failed, run, until


class Api:
    """Signed in as the administrator; believes the site's own authority and nobody else."""

    def __init__(self, server, ca, username, password):
        self.base = f"https://{server}:8080"
        self.tls = ssl.create_default_context(cafile=ca)
        self.who = {"username": username, "password": password}
        self.token = None

    def raw(self, method, path, body=None, token=None, deadline=60):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=deadline, context=self.tls) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def call(self, method, path, body=None):
        for last in (False, True):
            if self.token is None:
                self.token = self.raw("POST", "/api/v1/auth/login", self.who)["access_token"]
            try:
                return self.raw(method, "/api/v1" + path, body, self.token)
            except urllib.error.HTTPError as error:
                said = error.read().decode(errors="replace")
                if error.code == 401 and not last:
                    self.token = None
                    continue
                raise Failed(f"{method} {path}: {error.code} {said[:500]}") from None

    def get(self, path):
        return self.call("GET", path)

    def post(self, path, body):
        return self.call("POST", path, body)

    def items(self, path):
        return self.get(path)["items"]


class Cloud:
    """A VPC with a public subnet, a group that lets SSH and ping in, and instances in it."""

    def __init__(self, api, key, deadline):
        self.api, self.key, self.deadline = api, key, deadline

    def network(self):
        api = self.api
        vpc = api.post("/vpcs", {"name": "lab", "cidr_block": "10.0.0.0/16"})["id"]
        self.subnet = api.post(f"/vpcs/{vpc}/subnets", {
            "name": "lab", "cidr_block": "10.0.1.0/24", "map_public_ip_on_launch": True})["id"]
        gateway = api.post("/internet-gateways", {"name": "lab"})["id"]
        api.post(f"/internet-gateways/{gateway}/attach", {"vpc_id": vpc})
        main = next(t for t in api.items(f"/route-tables?vpc_id={vpc}") if t["is_main"])["id"]
        api.post(f"/route-tables/{main}/routes", {
            "destination_cidr": "0.0.0.0/0", "target_type": "gateway", "target_id": gateway})
        self.group = api.post("/security-groups", {
            "name": "lab", "description": "SSH and ping", "vpc_id": vpc})["id"]
        for protocol, ports in (("tcp", "22"), ("icmp", None)):
            api.post(f"/security-groups/{self.group}/rules", {
                "direction": "inbound", "protocol": protocol, "port_range": ports,
                "source_destination": "0.0.0.0/0"})
        with open(f"{self.key}.pub", encoding="utf-8") as public:
            api.post("/key-pairs", {"name": "lab", "public_key": public.read().strip()})

    def launch(self, name):
        image = until("the image gon-linux", 120, lambda: [
            i["id"] for i in self.api.items("/images") if i["name"] == "gon-linux"])[0]
        made = self.api.post("/instances", {
            "name": name, "image_id": image, "instance_type": "g1.nano", "subnet_id": self.subnet,
            "security_group_ids": [self.group], "key_name": "lab"})
        instances = made.get("instances", [made]) if isinstance(made, dict) else made
        return instances[0]["id"]

    def instance(self, which):
        return self.api.get(f"/instances/{which}")

    def running(self, which):
        def look():
            now = self.instance(which)
            if now["state"] in ("terminated", "shutting-down"):
                raise SystemExit(f"{which} is {now['state']}: {now['state_reason']}")
            return now if now["state"] == "running" else None
        return until(f"{which} runs", self.deadline, look, 2)

    def console(self, which):
        try:
            answer = self.api.get(f"/instances/{which}/console-output")
            text = answer.get("output", "") if isinstance(answer, dict) else str(answer)
            try:
                text = base64.b64decode(text, validate=True).decode(errors="replace")
            except ValueError:
                pass
            return text[-3000:]
        except Exception as error:  # noqa: BLE001 — only told to people
            return str(error)

    def answers_ping(self, address, deadline=None):
        begin = time.monotonic()
        until(f"{address} answers ping", deadline or self.deadline,
              lambda: run(["ping", "-n", "-c", "1", "-W", "3", address], 10, check=False).returncode == 0)
        return time.monotonic() - begin

    def ssh(self, address, command, deadline=120):
        return run(["ssh", "-i", self.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                    "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60",
                    f"root@{address}", command], deadline).stdout.strip()

    def answers_ssh(self, address, deadline=None):
        return until(f"{address} answers SSH", deadline or self.deadline,
                     lambda: self.ssh(address, "echo in; uname -r", 90).startswith("in"), 2)
