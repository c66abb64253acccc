//! Joining the site: the new server's side of [`gon_proto::join`].
//!
//! Assumes a join token that came by a way that can be trusted. Promises that keys are made here and stay here, that the
//! server which is told the secret is the one the token names (by its authority), that what comes back is for us before
//! anything is written, and that an answer which got lost is asked for again, by a later process, too: keys wait in their
//! directory until there are certificates for them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gon_proto::{JoinAnswer, JoinRequest, SiteAnswer, paths};
use gon_tls::{Identity, JoinToken, Role, SigningRequest, TlsDir, TlsError, connect_pinned};
use tokio::net::TcpStream;

use crate::link::{Link, LinkError, Stream, Transport, jitter};
use crate::tls::host_of;

/// How long the other server is asked again when it does not answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Why the server did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The other server was not reached or did not take it.
    #[error("the site did not let us in")]
    Refused(#[from] LinkError),
    /// What came back cannot be used.
    #[error("what the site sent cannot be used: {0}")]
    Answer(String),
    /// Keys, certificates or their files.
    #[error("keys and certificates")]
    Tls(#[from] TlsError),
}

/// What a server knows once it has joined. Certificates and authorities are in its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Its name.
    pub name: String,
    /// The roles it has certificates for.
    pub roles: Vec<Role>,
    /// What it shares with the others.
    pub site: SiteAnswer,
}

/// The server of a token, known by its authority.
#[derive(Debug)]
struct Pinned(JoinToken);

#[async_trait]
impl Transport for Pinned {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(&self.0.server).await?;
        let host = host_of(&self.0.server);
        Ok(Box::new(connect_pinned(stream, &self.0.ca_sha256, Role::InstanceManager, host).await?))
    }
    fn describe(&self) -> String {
        self.0.server.clone()
    }
}

/// Joins the site of `token` as the server `name` with `roles` ([`Role::WORKER`] for a worker), and writes keys,
/// certificates and authorities to `dir`. Files of an earlier membership are replaced when, and only when, the site has
/// let us in.
pub async fn join(token: &JoinToken, name: &str, roles: &[Role], dir: &TlsDir) -> Result<Joined, JoinError> {
    for role in roles {
        // A name that cannot be is said here, not by the other end.
        Identity::new(*role, name).map_err(TlsError::from)?;
    }
    let new = !dir.path().exists();
    dir.make()?;
    let mut keys = BTreeMap::new();
    let mut requests = BTreeMap::new();
    for role in roles {
        let request = request(dir, *role)?;
        requests.insert(*role, request.request_pem);
        keys.insert(*role, request.key_pem);
    }
    let secret = token.secret.clone();
    let request = JoinRequest { format: gon_proto::FORMAT, secret, name: name.to_owned(), requests };
    let answer = match ask(token, &request).await {
        Ok(answer) => answer,
        Err(error) => {
            if matches!(&error, JoinError::Refused(refused) if !refused.is_transient()) {
                // The site knows these keys as little as before: nothing waits.
                forget(dir, keys.keys());
                if new {
                    let _ = std::fs::remove_dir(dir.path());
                }
            }
            return Err(error);
        }
    };
    check(token, name, &keys, &answer)?;
    dir.trust(&answer.ca_pem)?;
    for (role, certificate) in &answer.certificates {
        if let Some(key) = keys.get(role) {
            dir.install(*role, key, certificate)?;
        }
    }
    forget(dir, keys.keys());
    Ok(Joined { name: answer.name, roles: keys.into_keys().collect(), site: answer.site })
}

/// The key that waits since an attempt whose answer was lost, with its request: the site let exactly that request in, and
/// for it the same token is good once more. A new key otherwise.
fn request(dir: &TlsDir, role: Role) -> Result<SigningRequest, JoinError> {
    let path = dir.joining(role);
    if let Ok(waiting) = dir.read(&path)
        && let Some(at) = waiting.find("-----BEGIN CERTIFICATE REQUEST-----")
    {
        let (key_pem, request_pem) = waiting.split_at(at);
        return Ok(SigningRequest { key_pem: key_pem.to_owned(), request_pem: request_pem.to_owned() });
    }
    let request = SigningRequest::new()?;
    dir.write(&path, &format!("{}{}", request.key_pem, request.request_pem), 0o600)?;
    Ok(request)
}

/// Nobody asks with these keys any more.
fn forget<'a>(dir: &TlsDir, roles: impl Iterator<Item = &'a Role>) {
    for role in roles {
        // One that is left is of no use to anybody: the site never certified it, or has.
        let _ = std::fs::remove_file(dir.joining(*role));
    }
}

/// The same request again and again: the site knows it by its keys.
async fn ask(token: &JoinToken, request: &JoinRequest) -> Result<JoinAnswer, JoinError> {
    let link = Link::new(Arc::new(Pinned(token.clone())));
    let started = Instant::now();
    loop {
        match link.exchange(paths::JOIN, request).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_transient() && started.elapsed() < PATIENCE => {
                tracing::info!(error = &error as &dyn std::error::Error, "asking again");
                tokio::time::sleep(PAUSE + jitter(PAUSE)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn check(
    token: &JoinToken,
    name: &str,
    keys: &BTreeMap<Role, String>,
    answer: &JoinAnswer,
) -> Result<(), JoinError> {
    let wrong = |what: String| Err(JoinError::Answer(what));
    if !gon_proto::is_spoken(answer.format) {
        return wrong(format!("it has format {}, we know {}", answer.format, gon_proto::FORMAT));
    }
    if answer.name != name || !answer.certificates.keys().eq(keys.keys()) {
        return wrong("it is for another server or other roles".to_owned());
    }
    if !gon_tls::bundle_sha256(&answer.ca_pem)?.contains(&token.ca_sha256) {
        return wrong("the authority of the token is not among those it names".to_owned());
    }
    for (role, certificate) in &answer.certificates {
        let expected = Identity::new(*role, name).map_err(TlsError::from)?;
        gon_tls::check_pair(certificate, &keys[role], &expected)?;
    }
    Ok(())
}
