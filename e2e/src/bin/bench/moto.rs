//! The peer of the API: moto's in-memory EC2, from PyPI, in the same namespace and on the same loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context;
use e2e::Host;
use e2e::world::World;
use e2e::{binaries, wait};

use crate::http::Server;

pub struct Moto {
    child: Child,
    pub server: Server,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    pub fn start(world: &World) -> anyhow::Result<Self> {
        let program = binaries::workspace().join("target/bench-venv/bin/moto_server");
        anyhow::ensure!(program.exists(), "{} is missing: run `make bench`", program.display());
        let port = 5601;
        let mut command = world.inside().command(&program.to_string_lossy());
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let headers = "Authorization: AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/us-east-1/ec2/aws4_request, \
                       SignedHeaders=host, Signature=0\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        let server = Server {
            inside: world.inside().clone(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            headers: headers.to_owned(),
        };
        let moto = Self { child, server };
        wait::until("moto", Duration::from_secs(60), || moto.call("DescribeVpcs", "").map(Some))?;
        Ok(moto)
    }

    pub fn body(action: &str, more: &str) -> String {
        format!("Action={action}&Version=2016-11-15{more}")
    }

    pub fn request(&self, action: &str, more: &str) -> Vec<u8> {
        self.server.request("POST", "/", &Self::body(action, more))
    }

    pub fn call(&self, action: &str, more: &str) -> anyhow::Result<String> {
        self.server.once("POST", "/", &Self::body(action, more))
    }
}

/// The text of the first element of that name.
pub fn element(xml: &str, name: &str) -> anyhow::Result<String> {
    let open = format!("<{name}>");
    let at = xml.find(&open).with_context(|| format!("no {name} in {xml:.300}"))? + open.len();
    Ok(xml[at..].split('<').next().unwrap_or_default().to_owned())
}
