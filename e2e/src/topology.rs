//! VPCs and instances, as a user of the API makes them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::api::{Api, text};
use crate::namespace::Namespace;
use crate::process;
use crate::say;
use crate::shell::Shell;
use crate::wait;
use crate::world::KEY_NAME;

/// How long a guest may take to boot under emulation on a busy machine.
pub const BOOT: Duration = Duration::from_secs(60);

/// What a user has of a cloud.
#[derive(Debug)]
pub struct Tenant {
    api: Api,
    outside: Namespace,
    key_file: PathBuf,
    images: Mutex<BTreeMap<String, String>>,
}

impl Tenant {
    /// Of the cloud of this API, whose public addresses are reached from `outside`. There is no key pair yet.
    #[must_use]
    pub fn new(api: Api, outside: Namespace, key_file: PathBuf) -> Self {
        Self { api, outside, key_file, images: Mutex::default() }
    }
}

/// A running cloud, as its users need it.
pub trait Cloud {
    /// What its user has of it.
    fn tenant(&self) -> &Tenant;
    /// Its API, signed in as the administrator.
    fn api(&self) -> &Api {
        &self.tenant().api
    }
    /// Where public addresses are reached from.
    fn outside(&self) -> &Namespace {
        &self.tenant().outside
    }
    /// The private half of the key pair of every instance.
    fn key_file(&self) -> &Path {
        &self.tenant().key_file
    }
    /// The id of an image, as soon as a node has it.
    ///
    /// # Errors
    /// When none has.
    fn image(&self, name: &str) -> anyhow::Result<String> {
        let known = || self.tenant().images.lock().map_err(|_| anyhow!("a lookup panicked"));
        if let Some(id) = known()?.get(name) {
            return Ok(id.clone());
        }
        let id = find_image(self.api(), name)?;
        known()?.insert(name.to_owned(), id.clone());
        Ok(id)
    }
    /// Makes the key pair of every instance.
    ///
    /// # Errors
    /// When it cannot be made, or the API refuses.
    fn make_key(&self) -> anyhow::Result<()> {
        let file = self.key_file();
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", "e2e", "-f"]).arg(file);
        process::check(&mut command, Duration::from_secs(10))?;
        let public = std::fs::read_to_string(file.with_extension("pub"))?;
        self.api().post("/key-pairs", &json!({ "name": KEY_NAME, "public_key": public.trim() }))?;
        Ok(())
    }
}

/// The id of an image, as soon as a node has it.
///
/// # Errors
/// When none has.
fn find_image(api: &Api, name: &str) -> anyhow::Result<String> {
    let found = wait::until(&format!("the image {name}"), Duration::from_secs(60), || {
        let page = api.get("/images")?;
        let items = page.get("items").and_then(Value::as_array).context("a list")?;
        let found = items.iter().find(|i| i.get("name").and_then(Value::as_str) == Some(name));
        found.map(|image| text(image, "id")).transpose()
    });
    found.map(|(id, _)| id)
}

/// A VPC with one subnet, its main route table, a gateway that is attached and routed to, and one security group.
#[derive(Debug, Clone)]
pub struct Network {
    /// The VPC's id.
    pub vpc: String,
    /// The first subnet's id.
    pub subnet: String,
    /// The main route table's id.
    pub table: String,
    /// The gateway's id.
    pub gateway: String,
    /// The security group's id; nothing is allowed in at first.
    pub group: String,
}

/// What to launch.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// Name of the instance.
    pub name: &'a str,
    /// Subnet's id.
    pub subnet: &'a str,
    /// Security groups' ids.
    pub groups: &'a [String],
    /// Name of the image.
    pub image: &'a str,
    /// Its type.
    pub instance_type: &'a str,
    /// User data, as text.
    pub user_data: Option<&'a str>,
    /// Its private address, unless any will do.
    pub private_ip: Option<Ipv4Addr>,
}

/// An instance as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its UUID, which names its processes and files.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: String,
    /// Its private address; 0.0.0.0 once it is terminated.
    pub private_ip: Ipv4Addr,
    /// Its public address, if any.
    pub public_ip: Option<Ipv4Addr>,
    /// The whole answer.
    pub json: Value,
}

impl Instance {
    /// From an answer of the API.
    ///
    /// # Errors
    /// When it is not an instance.
    pub fn parse(json: Value) -> anyhow::Result<Self> {
        let address = |field: &str| json.get(field).and_then(Value::as_str);
        Ok(Self {
            id: text(&json, "id")?,
            uuid: text(&json, "uuid")?,
            name: text(&json, "name")?,
            state: text(&json, "state")?,
            private_ip: address("private_ip").map_or(Ok(Ipv4Addr::UNSPECIFIED), str::parse)?,
            public_ip: address("public_ip").map(str::parse).transpose()?,
            json,
        })
    }

    /// Its public address.
    ///
    /// # Errors
    /// When it has none.
    pub fn public(&self) -> anyhow::Result<Ipv4Addr> {
        self.public_ip.with_context(|| format!("{} has no public address", self.name))
    }

    /// The name of its device on the node, which ends with its interface's last twelve digits.
    ///
    /// # Errors
    /// When it has no interface any more.
    pub fn device(&self) -> anyhow::Result<String> {
        let interface = text(&self.json, "network_interface_id")?;
        Ok(format!("gt{}", interface.get(interface.len() - 12..).context("an id has 17 digits")?))
    }

    /// Looks again.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn refresh(&self, api: &Api) -> anyhow::Result<Self> {
        Self::parse(api.get(&format!("/instances/{}", self.id))?)
    }

    /// Waits until its state is `state`.
    ///
    /// # Errors
    /// When it ends in another one, or takes too long.
    pub fn becomes(&self, api: &Api, state: &str, deadline: Duration) -> anyhow::Result<Self> {
        let (instance, took) =
            wait::until(&format!("{} ({}) becomes {state}", self.name, self.id), deadline, || {
                let now = self.refresh(api)?;
                if now.state == state {
                    return Ok(Some(now));
                }
                let reason = now.json.get("state_reason").cloned().unwrap_or_default();
                bail!("it is {} {reason}", now.state)
            })?;
        say!("{} is {state} after {} ms", self.name, took.as_millis());
        Ok(instance)
    }

    /// Asks for `start`, `stop` or `reboot`.
    ///
    /// # Errors
    /// When it is refused.
    pub fn act(&self, api: &Api, verb: &str, body: &Value) -> anyhow::Result<()> {
        api.post(&format!("/instances/{}/{verb}", self.id), body)?;
        Ok(())
    }

    /// Asks for its termination.
    ///
    /// # Errors
    /// When it is refused.
    pub fn terminate(&self, api: &Api) -> anyhow::Result<()> {
        api.delete(&format!("/instances/{}", self.id))?;
        Ok(())
    }

    /// What its console has said.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn console(&self, api: &Api) -> anyhow::Result<String> {
        let answer = api.get(&format!("/instances/{}/console-output", self.id))?;
        console_text(&answer)
    }

    /// A shell as its administrator, as soon as it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn shell(&self, cloud: &dyn Cloud) -> anyhow::Result<Shell> {
        self.shell_as(cloud, "root", BOOT)
    }

    /// A shell as another user.
    ///
    /// # Errors
    /// When there is none by the deadline.
    pub fn shell_as(&self, cloud: &dyn Cloud, user: &str, deadline: Duration) -> anyhow::Result<Shell> {
        let start = Instant::now();
        let shell = Shell::open(cloud.outside(), cloud.key_file(), user, self.public()?, deadline)
            .with_context(|| format!("a shell in {}", self.name))?;
        say!("{} has a shell after {} ms", self.name, start.elapsed().as_millis());
        Ok(shell)
    }
}

impl Network {
    /// A VPC of this block with one subnet of that one. `attached` says whether its gateway is attached.
    ///
    /// # Errors
    /// When the API refuses something.
    pub fn build(api: &Api, name: &str, block: &str, subnet: &str, attached: bool) -> anyhow::Result<Self> {
        let vpc = text(&api.post("/vpcs", &json!({ "name": name, "cidr_block": block }))?, "id")?;
        let gateway = text(&api.post("/internet-gateways", &json!({ "name": name }))?, "id")?;
        let tables = api.get(&format!("/route-tables?vpc_id={vpc}"))?;
        let tables = tables.get("items").and_then(Value::as_array).context("a list of tables")?;
        let main = tables.iter().find(|t| t.get("is_main") == Some(&Value::Bool(true)));
        let table = text(main.context("a main route table")?, "id")?;
        let body = json!({ "name": name, "description": "of an end-to-end test", "vpc_id": vpc });
        let group = text(&api.post("/security-groups", &body)?, "id")?;
        let mut network = Self { vpc, subnet: String::new(), table, gateway, group };
        network.subnet = network.add_subnet(api, name, subnet)?;
        if attached {
            network.attach(api)?;
            network.route_out(api)?;
        }
        Ok(network)
    }

    /// One more subnet, whose instances get public addresses.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn add_subnet(&self, api: &Api, name: &str, block: &str) -> anyhow::Result<String> {
        let body = json!({ "name": name, "cidr_block": block, "map_public_ip_on_launch": true });
        text(&api.post(&format!("/vpcs/{}/subnets", self.vpc), &body)?, "id")
    }

    /// Attaches the gateway.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn attach(&self, api: &Api) -> anyhow::Result<()> {
        let path = format!("/internet-gateways/{}/attach", self.gateway);
        api.post(&path, &json!({ "vpc_id": self.vpc }))?;
        Ok(())
    }

    /// The default route leads to the gateway.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn route_out(&self, api: &Api) -> anyhow::Result<()> {
        let body = json!({
            "destination_cidr": "0.0.0.0/0", "target_type": "gateway", "target_id": self.gateway,
        });
        api.post(&format!("/route-tables/{}/routes", self.table), &body)?;
        Ok(())
    }

    /// Removes the default route.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn unroute_out(&self, api: &Api) -> anyhow::Result<()> {
        api.delete(&format!("/route-tables/{}/routes?destination_cidr=0.0.0.0/0", self.table))?;
        Ok(())
    }

    /// Allows something in; the rule's id.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn allow(&self, api: &Api, protocol: &str, ports: &str, from: &str) -> anyhow::Result<String> {
        allow(api, &self.group, protocol, ports, from)
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn forbid(&self, api: &Api, rule: &str) -> anyhow::Result<()> {
        api.delete(&format!("/security-groups/{}/rules/{rule}", self.group))?;
        Ok(())
    }

    /// SSH and ping from anywhere: the rules' ids.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn open(&self, api: &Api) -> anyhow::Result<(String, String)> {
        Ok((self.allow(api, "tcp", "22", "0.0.0.0/0")?, self.allow(api, "icmp", "all", "0.0.0.0/0")?))
    }

    /// An instance in the first subnet with the group; not waited for.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn launch(&self, cloud: &dyn Cloud, name: &str) -> anyhow::Result<Instance> {
        launch(
            cloud,
            &Launch { groups: std::slice::from_ref(&self.group), ..Launch::tiny(name, &self.subnet) },
        )
    }

    /// [`Network::launch`], and waits until it runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn run(&self, cloud: &dyn Cloud, name: &str) -> anyhow::Result<Instance> {
        self.launch(cloud, name)?.becomes(cloud.api(), "running", BOOT)
    }
}

impl<'a> Launch<'a> {
    /// The smallest instance of the smallest image.
    #[must_use]
    pub fn tiny(name: &'a str, subnet: &'a str) -> Self {
        Self {
            name,
            subnet,
            groups: &[],
            image: "gon-linux",
            instance_type: "g1.pico",
            user_data: None,
            private_ip: None,
        }
    }
}

/// The text of an answer to a request for a console's output: base64, as EC2's.
///
/// # Errors
/// When it is not that.
pub fn console_text(answer: &Value) -> anyhow::Result<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text(answer, "output")?)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Allows something into a group; the rule's id.
///
/// # Errors
/// When the API refuses.
pub fn allow(api: &Api, group: &str, protocol: &str, ports: &str, from: &str) -> anyhow::Result<String> {
    let mut body = json!({ "direction": "inbound", "protocol": protocol, "source_destination": from });
    if matches!(protocol, "tcp" | "udp") {
        body["port_range"] = json!(ports);
    }
    text(&api.post(&format!("/security-groups/{group}/rules"), &body)?, "id")
}

/// Launches an instance; not waited for.
///
/// # Errors
/// When the API refuses.
pub fn launch(cloud: &dyn Cloud, what: &Launch<'_>) -> anyhow::Result<Instance> {
    let instance = Instance::parse(cloud.api().post("/instances", &request(cloud, what)?)?)?;
    say!("{} is {} at {} / {:?}", instance.name, instance.id, instance.private_ip, instance.public_ip);
    Ok(instance)
}

/// The body of the request for a launch.
///
/// # Errors
/// When the image is not there.
pub fn request(cloud: &dyn Cloud, what: &Launch<'_>) -> anyhow::Result<Value> {
    let mut body = json!({
        "name": what.name, "image_id": cloud.image(what.image)?, "instance_type": what.instance_type,
        "subnet_id": what.subnet, "key_name": KEY_NAME,
    });
    if !what.groups.is_empty() {
        body["security_group_ids"] = json!(what.groups);
    }
    if let Some(user_data) = what.user_data {
        body["user_data"] = json!(base64::engine::general_purpose::STANDARD.encode(user_data));
    }
    if let Some(address) = what.private_ip {
        body["private_ip"] = json!(address);
    }
    Ok(body)
}

/// Every instance that is not terminated.
///
/// # Errors
/// When the API does not answer.
pub fn living(api: &Api) -> anyhow::Result<Vec<Instance>> {
    let page = api.get("/instances?limit=100")?;
    let items = page.get("items").and_then(Value::as_array).context("a list")?;
    let all: Vec<Instance> = items.iter().cloned().map(Instance::parse).collect::<anyhow::Result<_>>()?;
    Ok(all.into_iter().filter(|i| i.state != "terminated").collect())
}

/// A TCP server that answers on every address of the namespace, to see who reaches the host.
#[derive(Debug)]
pub struct HostServer {
    /// Its port.
    pub port: u16,
    hits: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl HostServer {
    /// Starts one; it lives as long as this process.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(inside: &Namespace) -> anyhow::Result<Self> {
        let listener = inside.enter(|| Ok(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
        let port = listener.local_addr()?.port();
        let hits = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = hits.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = std::io::Write::write_all(&mut &stream, b"HTTP/1.0 200 OK\r\n\r\nthe host\n");
            }
        });
        Ok(Self { port, hits })
    }

    /// How many connections came about.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.hits.load(std::sync::atomic::Ordering::SeqCst)
    }
}
