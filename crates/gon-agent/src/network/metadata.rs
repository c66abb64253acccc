//! What `http://169.254.169.254/` answers: EC2's instance metadata, versions 1 and 2.
//!
//! Assumes that the port is known (the switch wrote its address) and what the document says about it. Everything here
//! is a function of request and document; serving it is [`super::services`]' business. Promises:
//!
//! - every entry that a listing names answers 200 (cloud-init drops the whole crawl otherwise), entries that end in
//!   `/` are directories;
//! - a token is worth something only to the interface and instance it was given to, only until it expires, and only
//!   until the host reboots;
//! - a request that went through a proxy gets no token (`X-Forwarded-For`), which is what stops most forged requests of
//!   servers in the guest.
//!
//! Tokens are not kept: one is its expiry, a nonce, and a MAC over both and the port under a key of this node, so
//! they survive a restart of the agent and cost no memory, however many a guest asks for.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::view::PortView;

/// How long a token may live, seconds.
const TTL: std::ops::RangeInclusive<u64> = 1..=21_600;
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// Every version there is, as EC2 lists them; all answer the same.
const VERSIONS: [&str; 27] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2022-09-24",
    "latest",
];

/// What of a request matters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// `GET`, `PUT`, …
    pub method: &'a str,
    /// The path, undecoded, without query.
    pub path: &'a str,
    /// Header `X-aws-ec2-metadata-token`.
    pub token: Option<&'a str>,
    /// Header `X-aws-ec2-metadata-token-ttl-seconds`.
    pub ttl: Option<&'a str>,
    /// Whether there is a header `X-Forwarded-For`.
    pub forwarded: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
    /// A further header.
    pub header: Option<(&'static str, String)>,
}

impl Response {
    fn text(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, content_type: "text/plain", body: body.into(), header: None }
    }
    fn error(status: u16) -> Self {
        let words = match status {
            400 => "400 - Bad Request",
            401 => "401 - Unauthorized",
            403 => "403 - Forbidden",
            404 => "404 - Not Found",
            _ => "405 - Method Not Allowed",
        };
        Self { status, ..Self::text(format!("{words}\n")) }
    }
}

/// Makes and judges tokens.
#[derive(Debug)]
pub struct Tokens {
    key: hmac::Key,
}

impl Tokens {
    /// With the key in `file`, made if it is missing or of an earlier boot: then expiry times, which count from the boot,
    /// would mean something else.
    pub fn open(file: &Path) -> std::io::Result<Self> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id")?;
        if let Ok(bytes) = std::fs::read(file)
            && bytes.len() == boot.len() + 32
            && bytes.starts_with(&boot)
        {
            return Ok(Self::with_key(&bytes[boot.len()..]));
        }
        let mut secret = [0u8; 32];
        rand::fill(&mut secret).map_err(|_| std::io::Error::other("no random numbers"))?;
        let beside = file.with_extension("new");
        let mut to =
            std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        to.write_all(&boot)?;
        to.write_all(&secret)?;
        std::fs::rename(&beside, file)?;
        Ok(Self::with_key(&secret))
    }

    fn with_key(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// What a token of this port says: for whom, until when, and which of many.
    fn claim(of: PortView<'_>, rest: &[u8]) -> Vec<u8> {
        let mut claim = b"gon-imds-1".to_vec();
        claim.extend_from_slice(of.port.id.uuid().as_bytes());
        claim.extend_from_slice(of.port.instance.uuid().as_bytes());
        claim.extend_from_slice(rest);
        claim
    }

    fn make(&self, of: PortView<'_>, expires: u64) -> Option<String> {
        let mut bytes = expires.to_be_bytes().to_vec();
        let mut nonce = [0u8; 8];
        rand::fill(&mut nonce).ok()?;
        bytes.extend_from_slice(&nonce);
        let tag = hmac::sign(&self.key, &Self::claim(of, &bytes));
        bytes.extend_from_slice(tag.as_ref());
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    fn is_valid(&self, of: PortView<'_>, token: &str, now: u64) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((rest, tag)) = bytes.split_at_checked(16) else { return false };
        let Some(expires) = rest.first_chunk::<8>() else { return false };
        hmac::verify(&self.key, &Self::claim(of, rest), tag).is_ok() && now < u64::from_be_bytes(*expires)
    }
}

/// Answers a request of a port. `now` is seconds since the machine's boot, suspend included.
#[must_use]
pub fn respond(of: PortView<'_>, tokens: &Tokens, request: Request<'_>, now: u64) -> Response {
    match request.method {
        "PUT" => put(of, tokens, request, now),
        "GET" | "HEAD" => {
            let allowed = match request.token {
                // A token that is shown must be good, whether or not one is needed.
                Some(token) => tokens.is_valid(of, token, now),
                None => !of.port.metadata.require_token,
            };
            if allowed { get(of, request.path) } else { Response::error(401) }
        }
        _ => Response::error(405),
    }
}

fn put(of: PortView<'_>, tokens: &Tokens, request: Request<'_>, now: u64) -> Response {
    if request.forwarded {
        return Response::error(403);
    }
    match request.path.trim_end_matches('/') {
        "/latest/api/token" => {}
        // Only `latest` has tokens.
        path if path.ends_with("/api/token") && is_version(path.split('/').nth(1)) => {
            return Response::error(403);
        }
        _ => return Response::error(405),
    }
    let ttl = request.ttl.filter(|t| t.len() <= 5 && t.bytes().all(|b| b.is_ascii_digit()));
    let Some(ttl) = ttl.and_then(|t| t.parse().ok()).filter(|t| TTL.contains(t)) else {
        return Response::error(400);
    };
    match tokens.make(of, now.saturating_add(ttl)) {
        Some(token) => Response { header: Some((TTL_HEADER, ttl.to_string())), ..Response::text(token) },
        None => Response { status: 503, ..Response::text("no random numbers\n") },
    }
}

fn is_version(word: Option<&str>) -> bool {
    word.is_some_and(|w| VERSIONS.contains(&w))
}

fn get(of: PortView<'_>, path: &str) -> Response {
    if path.len() > 512 {
        return Response::error(404);
    }
    // Slashes may be doubled, as every client and EC2 itself take them.
    let mut words = path.split('/').filter(|w| !w.is_empty());
    let Some(version) = words.next() else {
        return Response::text(VERSIONS.join("\n"));
    };
    if !VERSIONS.contains(&version) {
        return Response::error(404);
    }
    let rest: Vec<&str> = words.collect();
    match rest.as_slice() {
        ["user-data"] => return user_data(of),
        ["meta-data", "public-keys", index] | ["meta-data", "public-keys", index, "openssh-key"] => {
            let Some(key) =
                index.parse().ok().and_then(|n: usize| of.port.metadata.public_keys.values().nth(n))
            else {
                return Response::error(404);
            };
            return Response::text(if rest.len() == 3 { "openssh-key" } else { key });
        }
        _ => {}
    }
    let tree = tree(of);
    let prefix = rest.iter().fold(String::new(), |path, word| path + "/" + word);
    if let Some(leaf) = tree.get(&prefix) {
        return Response::text(leaf.as_bytes());
    }
    // A directory: the next words of everything below it, each once. The map is sorted, so equal words are neighbours.
    let below = format!("{prefix}/");
    let mut list: Vec<String> = tree
        .range(below.clone()..)
        .take_while(|(path, _)| path.starts_with(&below))
        .map(|(path, _)| match path[below.len()..].split_once('/') {
            Some((directory, _)) => format!("{directory}/"),
            None => path[below.len()..].to_owned(),
        })
        .collect();
    list.dedup();
    if rest.is_empty() && of.port.metadata.user_data.is_some() {
        list.push("user-data".to_owned());
    }
    if rest == ["meta-data", "public-keys"] {
        list =
            of.port.metadata.public_keys.keys().enumerate().map(|(n, name)| format!("{n}={name}")).collect();
    }
    if list.is_empty() { Response::error(404) } else { Response::text(list.join("\n")) }
}

fn user_data(of: PortView<'_>) -> Response {
    match of.port.metadata.user_data.as_deref().map(|text| STANDARD.decode(text)) {
        Some(Ok(bytes)) => Response { content_type: "application/octet-stream", ..Response::text(bytes) },
        _ => Response::error(404),
    }
}

/// Every leaf of a version by its path; public keys, whose listing is of another kind, stand there by a placeholder.
fn tree(of: PortView<'_>) -> BTreeMap<String, String> {
    let PortView { port, subnet, vpc } = of;
    let meta = &port.metadata;
    let region = region_of(&meta.availability_zone);
    let mut tree = BTreeMap::new();
    let mut put = |path: &str, value: String| drop(tree.insert(path.to_owned(), value));
    for (path, value) in [
        ("ami-id", meta.ami_id.as_str()),
        ("ami-manifest-path", "(unknown)"),
        ("block-device-mapping/ami", "/dev/vda"),
        ("block-device-mapping/root", "/dev/vda"),
        ("hostname", &meta.local_hostname),
        ("instance-action", "none"),
        ("instance-id", &meta.instance_id),
        ("instance-life-cycle", "on-demand"),
        ("instance-type", &meta.instance_type),
        ("local-hostname", &meta.local_hostname),
        ("placement/availability-zone", &meta.availability_zone),
        ("placement/region", region),
        ("profile", "default-hvm"),
        ("reservation-id", &meta.reservation_id),
    ] {
        put(&format!("/meta-data/{path}"), value.to_owned());
    }
    put("/meta-data/ami-launch-index", meta.launch_index.to_string());
    put("/meta-data/local-ipv4", port.private_ip.to_string());
    put("/meta-data/mac", port.mac.to_string());
    put("/meta-data/security-groups", meta.security_groups.join("\n"));
    if !meta.public_keys.is_empty() {
        put("/meta-data/public-keys/0", String::new());
    }
    let nic = format!("/meta-data/network/interfaces/macs/{}", port.mac);
    let blocks: Vec<String> = vpc.cidr_blocks.iter().map(ToString::to_string).collect();
    for (name, value) in [
        ("device-number", "0".to_owned()),
        ("interface-id", port.id.to_string()),
        ("local-hostname", meta.local_hostname.clone()),
        ("local-ipv4s", port.addresses().map(|ip| ip.to_string()).collect::<Vec<_>>().join("\n")),
        ("mac", port.mac.to_string()),
        ("owner-id", meta.account_id.clone()),
        ("security-groups", meta.security_groups.join("\n")),
        ("subnet-id", meta.subnet_id.clone()),
        ("subnet-ipv4-cidr-block", subnet.cidr_block.to_string()),
        ("vpc-id", meta.vpc_id.clone()),
        ("vpc-ipv4-cidr-block", blocks.first().cloned().unwrap_or_default()),
        ("vpc-ipv4-cidr-blocks", blocks.join("\n")),
    ] {
        put(&format!("{nic}/{name}"), value);
    }
    if let Some(public) = port.public_ip {
        put("/meta-data/public-ipv4", public.to_string());
        put(&format!("{nic}/public-ipv4s"), public.to_string());
        put(&format!("{nic}/ipv4-associations/{public}"), port.private_ip.to_string());
    }
    let document = json!({
        "accountId": meta.account_id,
        "architecture": std::env::consts::ARCH,
        "availabilityZone": meta.availability_zone,
        "billingProducts": null,
        "devpayProductCodes": null,
        "imageId": meta.ami_id,
        "instanceId": meta.instance_id,
        "instanceType": meta.instance_type,
        "kernelId": null,
        "marketplaceProductCodes": null,
        "privateIp": port.private_ip,
        "ramdiskId": null,
        "region": region,
        "version": "2017-09-30",
    });
    put("/dynamic/instance-identity/document", format!("{document:#}"));
    tree
}

/// The region of a zone: its name without the last letter.
fn region_of(zone: &str) -> &str {
    zone.strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or(zone)
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
