//! Who is signed in: the session file, the calls made with it, and how resources are named on the command line.
//!
//! The session file is `$XDG_CONFIG_HOME/gon/session.json` (or `~/.config/…`), mode 0600. It holds the refresh token;
//! an access token lives as long as a command.

use std::io::{BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use gon_api::client::Client;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where the API is unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// Where a server of a site keeps the certificate of the site's authority.
const SITE_CA: &str = "/var/lib/gon/ca.crt";

#[derive(Serialize, Deserialize)]
struct Session {
    url: String,
    refresh_token: String,
    /// The authority whose servers are believed (PEM); only for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

/// A signed-in client.
pub struct Api {
    client: Client,
    session: Option<(PathBuf, Session)>,
    signed_in: bool,
    verbose: bool,
}

impl Api {
    /// A client that signs in with a password and keeps nothing on disk.
    pub async fn with_password(
        url: &str,
        username: &str,
        password: &str,
        verbose: bool,
    ) -> anyhow::Result<Self> {
        let mut client = Client::new(url)?;
        client.login(username, password).await?;
        Ok(Self { client, session: None, signed_in: true, verbose })
    }

    /// The client of the session on disk.
    pub fn resume(url: Option<String>, verbose: bool) -> anyhow::Result<Self> {
        let path = session_path()?;
        let text = std::fs::read(&path).ok().context("nobody is signed in: run 'gon login USERNAME'")?;
        let mut session: Session = serde_json::from_slice(&text)
            .with_context(|| format!("{} cannot be read: run 'gon login USERNAME' again", path.display()))?;
        if let Some(url) = url {
            session.url = url;
        }
        Ok(Self {
            client: Client::trusting(&session.url, session.ca.as_deref())?,
            session: Some((path, session)),
            signed_in: false,
            verbose,
        })
    }

    /// Exchanges the refresh token for an access token; the new refresh token replaces the old on disk first, since the
    /// old one is spent.
    async fn sign_in(&mut self) -> anyhow::Result<()> {
        if self.signed_in {
            return Ok(());
        }
        let Some((path, session)) = &mut self.session else { return Ok(()) };
        let answer = self
            .client
            .post("/api/v1/auth/refresh", &json!({ "refresh_token": session.refresh_token }))
            .await
            .context("the session has ended: run 'gon login USERNAME'")?;
        let text = |key: &str| answer.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
        session.refresh_token = text("refresh_token").context("the API sent no refresh token")?;
        write_private(path, &serde_json::to_vec_pretty(session)?)?;
        self.client.set_token(text("access_token"));
        self.signed_in = true;
        Ok(())
    }

    /// Any call.
    pub async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.sign_in().await?;
        if self.verbose {
            crate::output::trace(&method, path, body);
        }
        Ok(self.client.call(method, path, body, &[]).await?.body)
    }
    /// GET.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }
    /// POST.
    pub async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }
    /// PUT.
    pub async fn put(&mut self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::PUT, path, Some(body)).await
    }
    /// DELETE.
    pub async fn delete(&mut self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::DELETE, path, None).await
    }
    /// Every item of a list.
    pub async fn list(&mut self, path: &str) -> anyhow::Result<Vec<Value>> {
        self.sign_in().await?;
        if self.verbose {
            crate::output::trace(&Method::GET, path, None);
        }
        Ok(self.client.list(path).await?)
    }

    /// Ends the session on the server and on disk.
    pub async fn logout(&mut self) -> anyhow::Result<()> {
        let token = self.session.as_ref().map(|(_, s)| s.refresh_token.clone());
        self.client.post("/api/v1/auth/logout", &json!({ "refresh_token": token })).await?;
        if let Some((path, _)) = &self.session {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// `gon login`.
pub async fn login(
    url: Option<String>,
    ca: Option<PathBuf>,
    username: &str,
    password: Option<String>,
    verbose: bool,
) -> anyhow::Result<()> {
    let url = url.unwrap_or_else(|| DEFAULT_URL.to_owned());
    let ca = authority(&url, ca)?;
    // Before anybody types a password: what is wrong with the address is wrong without one, too.
    let mut client = Client::trusting(&url, ca.as_deref())?;
    let password = match password {
        Some(password) => password,
        None => ask_password()?,
    };
    if verbose {
        crate::output::trace(&Method::POST, "/api/v1/auth/login", None);
    }
    let answer = client.login(username, &password).await?;
    let refresh_token = answer
        .get("refresh_token")
        .and_then(Value::as_str)
        .context("the API sent no refresh token")?
        .to_owned();
    let path = session_path()?;
    write_private(&path, &serde_json::to_vec_pretty(&Session { url, refresh_token, ca })?)?;
    crate::output::line(&format!("Signed in as {username}."));
    Ok(())
}

/// The certificate of the authority to believe: the one that is named, or the site's on one of its servers.
fn authority(url: &str, named: Option<PathBuf>) -> anyhow::Result<Option<String>> {
    let file = match named {
        Some(file) => file,
        None if url.starts_with("https://") && Path::new(SITE_CA).exists() => PathBuf::from(SITE_CA),
        None => return Ok(None),
    };
    Ok(Some(std::fs::read_to_string(&file).with_context(|| file.display().to_string())?))
}

/// Reads a line from the terminal without showing it.
fn ask_password() -> anyhow::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !isatty(&stdin) {
        bail!("there is no terminal to ask for the password on: set GON_PASSWORD");
    }
    let mut terminal = std::io::stderr();
    write!(terminal, "Password: ")?;
    terminal.flush()?;
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &silent)?;
    let mut password = String::new();
    let read = stdin.lock().read_line(&mut password);
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    writeln!(terminal)?;
    read?;
    Ok(password.trim_end_matches('\n').to_owned())
}

fn session_path() -> anyhow::Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = from("XDG_CONFIG_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".config")))
        .context("neither XDG_CONFIG_HOME nor HOME says where to keep the session")?;
    Ok(base.join("gon/session.json"))
}

/// Writes a file only its owner can read, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("the file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let partial = path.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .with_context(|| partial.display().to_string())?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path).with_context(|| path.display().to_string())
}

/// Path of a list.
pub fn list_path(resource: &str, filters: &[String]) -> anyhow::Result<String> {
    const KNOWN: [&str; 15] = [
        "instances",
        "vpcs",
        "subnets",
        "security-groups",
        "route-tables",
        "internet-gateways",
        "network-acls",
        "network-interfaces",
        "prefix-lists",
        "addresses",
        "key-pairs",
        "images",
        "instance-types",
        "nodes",
        "operations",
    ];
    if !KNOWN.contains(&resource) {
        bail!("'{resource}' is no kind of resource: one of {}", KNOWN.join(", "));
    }
    let mut path = format!("/api/v1/{resource}");
    for (index, filter) in filters.iter().enumerate() {
        let (key, value) =
            filter.split_once('=').with_context(|| format!("'{filter}' is no filter: KEY=VALUE"))?;
        path.push(if index == 0 { '?' } else { '&' });
        path.push_str(&format!("{}={}", escape(key), escape(value)));
    }
    Ok(path)
}

/// Percent-encodes what a query may not have (RFC 3986, unreserved characters stay).
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Path of a resource: the prefix of its id says what it is.
pub fn path_of(id: &str) -> anyhow::Result<String> {
    let prefix = id.rsplit_once('-').map_or("", |(prefix, _)| prefix);
    let resource = match prefix {
        "i" => "instances",
        "vpc" => "vpcs",
        "subnet" => "subnets",
        "sg" => "security-groups",
        "rtb" => "route-tables",
        "igw" => "internet-gateways",
        "acl" => "network-acls",
        "eni" => "network-interfaces",
        "pl" => "prefix-lists",
        "eipalloc" => "addresses",
        "key" => "key-pairs",
        "ami" => "images",
        "node" => "nodes",
        "op" => "operations",
        _ => bail!("'{id}' is no id: expected something like i-0123456789abcdef0 or vpc-0123456789abcdef0"),
    };
    Ok(format!("/api/v1/{resource}/{}", escape(id)))
}

/// Path of an instance.
pub fn path_of_instance(id: &str) -> anyhow::Result<String> {
    if !id.starts_with("i-") {
        bail!("'{id}' is not the id of an instance: expected something like i-0123456789abcdef0");
    }
    path_of(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_says_the_path() {
        assert_eq!(path_of("i-0123456789abcdef0").unwrap(), "/api/v1/instances/i-0123456789abcdef0");
        assert_eq!(path_of("sg-1").unwrap(), "/api/v1/security-groups/sg-1");
        assert_eq!(path_of("acl-1").unwrap(), "/api/v1/network-acls/acl-1");
        for bad in ["", "nonsense", "x-1", "../users-1"] {
            assert!(path_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_are_escaped() {
        let path = list_path("instances", &["tag:a b=c&d".to_owned(), "state=running".to_owned()]).unwrap();
        assert_eq!(path, "/api/v1/instances?tag%3Aa%20b=c%26d&state=running");
        assert!(list_path("users/../x", &[]).is_err());
    }

    #[test]
    fn private_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("gon-session-{}", std::process::id()));
        let path = folder.join("a/session.json");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
