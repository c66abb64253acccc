//! Docker, as far as a node says whether it has it: what it is, and which version of its API we would speak.
//!
//! Assumes Docker's socket on this machine. Promises a bounded, read-only look: three requests, a deadline each, and
//! answers no larger than [`ANSWER_LIMIT`]. Driving containers is not done here.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The versions of Docker's API that we can speak, oldest and newest: 20.10 has 1.41.
pub const API: (ApiVersion, ApiVersion) = (ApiVersion(1, 41), ApiVersion(1, 53));
/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const ANSWER_LIMIT: u64 = 1 << 20;

/// A version of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u16, pub u16);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}
impl std::str::FromStr for ApiVersion {
    type Err = DockerError;
    fn from_str(text: &str) -> Result<Self, DockerError> {
        let parts = text.split_once('.').and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        parts.ok_or_else(|| DockerError::Unreadable(format!("'{}' is no API version", text.escape_debug())))
    }
}

/// What Docker on this machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerFacts {
    /// Its version.
    pub version: String,
    /// The version of its API that both sides speak.
    pub api: String,
    /// `1` or `2`: how it limits what containers use.
    pub cgroup: String,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// How it stores layers.
    pub storage_driver: String,
    /// Whether containers survive its restart.
    pub live_restore: bool,
    /// What it confines containers with (`seccomp`, `apparmor`, `userns`, …).
    pub confinement: Vec<String>,
}

/// Why Docker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// It does not run here.
    #[error("no Docker answers at {path}")]
    Absent {
        /// Where it was looked for.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It did not answer in time.
    #[error("Docker did not answer within {DEADLINE:?}")]
    Deadline,
    /// What it answered makes no sense.
    #[error("Docker's answer cannot be read: {0}")]
    Unreadable(String),
    /// It is too old, or too new.
    #[error("Docker speaks API {min} to {max}, we speak {} to {}", API.0, API.1)]
    NoCommonApi {
        /// The oldest it speaks.
        min: String,
        /// The newest it speaks.
        max: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
    api_version: String,
    #[serde(rename = "MinAPIVersion", default)]
    min_api_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Info {
    cgroup_version: String,
    cgroup_driver: String,
    driver: String,
    live_restore_enabled: bool,
    security_options: Option<Vec<String>>,
}

/// Looks at Docker.
pub async fn facts(socket: &Path) -> Result<DockerFacts, DockerError> {
    let version: Version = read(&get(socket, "/version").await?)?;
    let newest: ApiVersion = version.api_version.parse()?;
    // Old ones do not say.
    let oldest = if version.min_api_version.is_empty() {
        ApiVersion(1, 12)
    } else {
        version.min_api_version.parse()?
    };
    let api = negotiate(oldest, newest)
        .ok_or_else(|| DockerError::NoCommonApi { min: oldest.to_string(), max: newest.to_string() })?;
    let info: Info = read(&get(socket, &format!("/v{api}/info")).await?)?;
    // "name=seccomp,profile=default" and the like.
    let confinement = info.security_options.unwrap_or_default();
    let confinement = confinement.iter().filter_map(|option| {
        let name = option.split(',').find_map(|part| part.strip_prefix("name="))?;
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-').then(|| name.to_owned())
    });
    Ok(DockerFacts {
        version: version.version,
        api: api.to_string(),
        cgroup: if info.cgroup_version.is_empty() { "1".to_owned() } else { info.cgroup_version },
        cgroup_driver: info.cgroup_driver,
        storage_driver: info.driver,
        live_restore: info.live_restore_enabled,
        confinement: confinement.collect(),
    })
}

/// The newest version that both sides speak.
fn negotiate(oldest: ApiVersion, newest: ApiVersion) -> Option<ApiVersion> {
    let common = newest.min(API.1);
    (common >= oldest && common >= API.0).then_some(common)
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, DockerError> {
    serde_json::from_slice(body).map_err(|error| DockerError::Unreadable(error.to_string()))
}

/// HTTP/1.0: the answer ends where the connection does.
async fn get(socket: &Path, target: &str) -> Result<Vec<u8>, DockerError> {
    let absent = |source| DockerError::Absent { path: socket.display().to_string(), source };
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await.map_err(absent)?;
        let request = format!("GET {target} HTTP/1.0\r\nHost: docker\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(absent)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_LIMIT).read_to_end(&mut answer).await.map_err(absent)?;
        Ok(answer)
    };
    let answer = tokio::time::timeout(DEADLINE, exchange).await.map_err(|_| DockerError::Deadline)??;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let (head, body) = match end {
        Some(end) => (&answer[..end], &answer[end + 4..]),
        None => return Err(DockerError::Unreadable("it is no HTTP".to_owned())),
    };
    let status = String::from_utf8_lossy(head.split(|b| *b == b'\r').next().unwrap_or_default()).into_owned();
    if status.split(' ').nth(1) != Some("200") {
        return Err(DockerError::Unreadable(format!("{}", status.escape_debug())));
    }
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_have_a_say_in_the_version() {
        let speak = |min: &str, max: &str| {
            negotiate(min.parse().unwrap(), max.parse().unwrap()).map(|v| v.to_string())
        };
        assert_eq!(speak("1.12", "1.41").as_deref(), Some("1.41"), "Docker 20.10");
        assert_eq!(speak("1.24", "1.47").as_deref(), Some("1.47"), "Docker 27");
        assert_eq!(speak("1.44", "1.60").as_deref(), Some("1.53"), "a newer one that still speaks ours");
        assert_eq!(speak("1.60", "1.70"), None);
        assert_eq!(speak("1.12", "1.40"), None, "Docker 19.03");
        assert!("1".parse::<ApiVersion>().is_err() && "1.x".parse::<ApiVersion>().is_err());
    }

    /// Answers like Docker 20.10 does to HTTP/1.0.
    async fn docker(listener: tokio::net::UnixListener, version: &'static str) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let body = match request.split(' ').nth(1).unwrap() {
                "/version" => version,
                "/v1.41/info" => {
                    r#"{"ID":"X","Driver":"overlay2","CgroupDriver":"systemd","CgroupVersion":"2","LiveRestoreEnabled":true,"SecurityOptions":["name=seccomp,profile=default","name=userns","evil"]}"#
                }
                _ => "",
            };
            let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
            let answer = format!("HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn docker_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        assert!(matches!(facts(&path).await, Err(DockerError::Absent { .. })));
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(docker(
            listener,
            r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12","Os":"linux"}"#,
        ));
        let facts = facts(&path).await.unwrap();
        assert_eq!((facts.version.as_str(), facts.api.as_str()), ("20.10.24", "1.41"));
        assert_eq!((facts.cgroup.as_str(), facts.storage_driver.as_str()), ("2", "overlay2"));
        assert!(facts.live_restore);
        assert_eq!(facts.confinement, ["seccomp", "userns"]);
    }

    #[tokio::test]
    async fn nonsense_is_a_value_and_ends_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(docker(listener, r#"{"Version":"19","ApiVersion":"1.40"}"#));
        assert!(matches!(facts(&path).await, Err(DockerError::NoCommonApi { .. })));
    }
}
