//! `gon quickstart`: from an empty cloud to an instance that answers SSH, step by step, each step what a user would do.
//!
//! Idempotent: everything is found by the name `quickstart` before it is made. Leaves in `DATA_DIR/quickstart` the SSH
//! key, a summary for people and `instance.env` for scripts.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::session::{Api, write_private};

const NAME: &str = "quickstart";
const VPC_BLOCK: &str = "10.0.0.0/16";
const SUBNET_BLOCK: &str = "10.0.1.0/24";
const IMAGE: &str = "gon-linux";
const TYPE: &str = "g1.nano";

/// How long a guest may take to boot, also under emulation on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Shows one step at a time and how long it took.
struct Steps(Instant);

impl Steps {
    fn begin(text: &str) -> (ProgressBar, Self) {
        let bar = ProgressBar::new_spinner().with_message(text.to_owned());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        (bar, Self(Instant::now()))
    }
}

/// Runs one step with progress.
async fn step<T>(text: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let (bar, Steps(begin)) = Steps::begin(text);
    let result = work.await;
    bar.finish_and_clear();
    match &result {
        Ok(_) => crate::output::line(&format!("  ✓ {text}  {:.1} s", begin.elapsed().as_secs_f64())),
        Err(_) => crate::output::line(&format!("  ✗ {text}  {:.1} s", begin.elapsed().as_secs_f64())),
    }
    result
}

/// Does it all.
pub async fn run(url: &str, data_dir: &Path, verbose: bool) -> anyhow::Result<()> {
    let folder = data_dir.join(NAME);
    let key_path = folder.join("id_ed25519");
    let (username, mut api) = step("API", sign_in(url, data_dir, verbose)).await?;
    let instance = step("first network and instance", async {
        let vpc = ensure(&mut api, "vpcs", "", json!({ "name": NAME, "cidr_block": VPC_BLOCK })).await?;
        let vpc_id = id(&vpc)?;
        let in_vpc = format!("vpc_id={vpc_id}");
        let body = json!({ "name": NAME, "cidr_block": SUBNET_BLOCK, "map_public_ip_on_launch": true });
        let subnet = match find(&mut api, "subnets", &in_vpc).await? {
            Some(subnet) => subnet,
            None => api.post(&format!("/api/v1/vpcs/{vpc_id}/subnets"), &body).await?,
        };
        let gateway = ensure(&mut api, "internet-gateways", "", json!({ "name": NAME })).await?;
        if gateway.get("vpc_id").is_none_or(Value::is_null) {
            let path = format!("/api/v1/internet-gateways/{}/attach", id(&gateway)?);
            api.post(&path, &json!({ "vpc_id": vpc_id })).await?;
        }
        route_out(&mut api, &in_vpc, &id(&gateway)?).await?;
        let group = group(&mut api, &in_vpc, &vpc_id).await?;
        key_pair(&mut api, &key_path).await?;
        instance(&mut api, &id(&subnet)?, &group).await
    })
    .await?;
    let instance_id = id(&instance)?;
    let path = format!("/api/v1/instances/{instance_id}");
    let address = step("instance running", running(&mut api, &path)).await?;
    step("SSH answers", answers_ssh(address)).await?;

    let ssh = format!(
        "ssh -i {} -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={} root@{address}",
        shown(&key_path),
        shown(&folder.join("known_hosts"))
    );
    let password = if data_dir.join("admin.json").exists() {
        format!("password in {}", shown(&data_dir.join("admin.json")))
    } else {
        "password from GON_ADMIN_PASSWORD".to_owned()
    };
    let summary = format!(
        "  Console   {url}/\n  Login     {username}, {password}\n  Instance  {instance_id}  {address}\n  SSH       {ssh}\n"
    );
    write_private(&folder.join("summary.txt"), summary.as_bytes())?;
    let env = format!(
        "GON_INSTANCE={instance_id}\nGON_INSTANCE_IP={address}\nGON_INSTANCE_SSH='{ssh} -o BatchMode=yes'\n"
    );
    write_private(&folder.join("instance.env"), env.as_bytes())
}

/// A path as the user can type it: relative to where he is if it is below, quoted for a shell if it must be.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let text = path.strip_prefix(&here).unwrap_or(path).display().to_string();
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@".contains(&b)) {
        text
    } else {
        format!("\"{}\"", text.replace(['"', '$', '`', '\\', '\''], "?"))
    }
}

async fn sign_in(url: &str, data_dir: &Path, verbose: bool) -> anyhow::Result<(String, Api)> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match try_sign_in(url, data_dir, verbose).await {
            Ok(ready) => return Ok(ready),
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .context(format!("the daemon did not come up; its log is in {}/log", shown(data_dir)));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn try_sign_in(url: &str, data_dir: &Path, verbose: bool) -> anyhow::Result<(String, Api)> {
    let (username, password) = match std::fs::read(data_dir.join("admin.json")) {
        Ok(text) => {
            let admin: Value = serde_json::from_slice(&text)?;
            let text = |key: &str| admin.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
            (
                text("username").context("admin.json has no username")?,
                text("password").context("admin.json has no password")?,
            )
        }
        Err(_) => (
            std::env::var("GON_ADMIN_USER").unwrap_or_else(|_| "admin".to_owned()),
            std::env::var("GON_ADMIN_PASSWORD")
                .context("there is neither admin.json nor GON_ADMIN_PASSWORD")?,
        ),
    };
    let api = Api::with_password(url, &username, &password, verbose).await?;
    Ok((username, api))
}

fn id(resource: &Value) -> anyhow::Result<String> {
    resource
        .get("id")
        .and_then(Value::as_str)
        .map(ToOwned::to_owned)
        .context("the API sent a resource without an id")
}

async fn find(api: &mut Api, resource: &str, filter: &str) -> anyhow::Result<Option<Value>> {
    let items = api.list(&format!("/api/v1/{resource}?{filter}")).await?;
    Ok(items.into_iter().find(|item| item.get("name").and_then(Value::as_str) == Some(NAME)))
}

async fn ensure(api: &mut Api, resource: &str, filter: &str, body: Value) -> anyhow::Result<Value> {
    match find(api, resource, filter).await? {
        Some(found) => Ok(found),
        None => api.post(&format!("/api/v1/{resource}"), &body).await,
    }
}

/// The main route table leads everything that is not local out through the gateway.
async fn route_out(api: &mut Api, in_vpc: &str, gateway: &str) -> anyhow::Result<()> {
    let tables = api.list(&format!("/api/v1/route-tables?{in_vpc}")).await?;
    let main = tables
        .iter()
        .find(|t| t.get("is_main").and_then(Value::as_bool) == Some(true))
        .context("the VPC has no main route table")?;
    let default = |route: &Value| route.get("destination_cidr").and_then(Value::as_str) == Some("0.0.0.0/0");
    if !main.get("routes").and_then(Value::as_array).is_some_and(|routes| routes.iter().any(default)) {
        let path = format!("/api/v1/route-tables/{}/routes", id(main)?);
        let body = json!({ "destination_cidr": "0.0.0.0/0", "target_type": "gateway", "target_id": gateway });
        api.post(&path, &body).await?;
    }
    Ok(())
}

async fn group(api: &mut Api, in_vpc: &str, vpc_id: &str) -> anyhow::Result<String> {
    if let Some(found) = find(api, "security-groups", in_vpc).await? {
        return id(&found);
    }
    let body = json!({ "name": NAME, "description": "SSH and ping from anywhere", "vpc_id": vpc_id });
    let group = id(&api.post("/api/v1/security-groups", &body).await?)?;
    for (protocol, ports) in [("tcp", Some("22")), ("icmp", None)] {
        let rule = json!({
            "direction": "inbound", "protocol": protocol, "port_range": ports, "source_destination": "0.0.0.0/0",
        });
        api.post(&format!("/api/v1/security-groups/{group}/rules"), &rule).await?;
    }
    Ok(group)
}

/// The key pair, with its private half here: one whose private half is lost is replaced.
async fn key_pair(api: &mut Api, key_path: &Path) -> anyhow::Result<()> {
    if let Some(found) = find(api, "key-pairs", "").await? {
        if key_path.exists() {
            return Ok(());
        }
        api.delete(&format!("/api/v1/key-pairs/{}", id(&found)?)).await?;
    }
    let made = api.post("/api/v1/key-pairs", &json!({ "name": NAME })).await?;
    let private = made.get("private_key").and_then(Value::as_str).context("the API sent no private key")?;
    write_private(key_path, private.as_bytes())
}

async fn instance(api: &mut Api, subnet: &str, group: &str) -> anyhow::Result<Value> {
    let state = |i: &Value| i.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
    let items = api.list("/api/v1/instances").await?;
    let mine = items.into_iter().find(|i| {
        i.get("name").and_then(Value::as_str) == Some(NAME)
            && !matches!(state(i).as_str(), "terminated" | "shutting-down")
    });
    if let Some(found) = mine {
        if state(&found) == "stopped" {
            api.post(&format!("/api/v1/instances/{}/start", id(&found)?), &json!({})).await?;
        }
        return Ok(found);
    }
    let deadline = Instant::now() + PATIENCE;
    let image = loop {
        // A node tells which images it has soon after it starts.
        let images = api.list("/api/v1/images").await?;
        if let Some(image) = images.iter().find(|i| i.get("name").and_then(Value::as_str) == Some(IMAGE)) {
            break id(image)?;
        }
        if Instant::now() > deadline {
            bail!("no node has the image {IMAGE}: run 'gond image build'");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let body = json!({
        "name": NAME, "image_id": image, "instance_type": TYPE, "subnet_id": subnet, "security_group_ids": [group],
        "key_name": NAME,
    });
    api.post("/api/v1/instances", &body).await
}

async fn running(api: &mut Api, path: &str) -> anyhow::Result<Ipv4Addr> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let instance = api.get(path).await?;
        let text = |key: &str| instance.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match text("state").as_str() {
            "running" => {
                return text("public_ip").parse().context("the instance has no public address");
            }
            "pending" | "stopping" => {}
            state => bail!("the instance is {state}: {}", text("state_reason")),
        }
        if Instant::now() > deadline {
            bail!(
                "the instance is still {} after {} s: {}",
                text("state"),
                PATIENCE.as_secs(),
                text("state_reason")
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for an SSH server's first line (RFC 4253 §4.2).
async fn answers_ssh(address: Ipv4Addr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let greeting = async {
            let mut stream = tokio::net::TcpStream::connect((address, 22)).await?;
            let mut first = [0; 4];
            stream.read_exact(&mut first).await?;
            Ok::<_, std::io::Error>(first)
        };
        if let Ok(Ok(first)) = tokio::time::timeout(Duration::from_secs(2), greeting).await
            && &first == b"SSH-"
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{address} does not answer SSH after {} s: see 'gon console'", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
