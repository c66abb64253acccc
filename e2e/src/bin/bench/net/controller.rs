//! A network controller that serves what the benchmark says, over a unix socket, as the real one does.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gon_proto::{NetworkReport, NodeNetwork, PortStatus, paths};
use gon_types::DocumentVersion;

#[derive(Debug, Default)]
struct State {
    /// The document on offer, as it goes over the wire.
    document: Option<(DocumentVersion, Arc<Vec<u8>>)>,
    report: Option<(NetworkReport, Instant)>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub struct Controller(Arc<Shared>);

/// A document that is ready to be sent.
#[derive(Debug, Clone)]
pub struct Prepared(DocumentVersion, Arc<Vec<u8>>);

impl Prepared {
    pub fn new(document: &NodeNetwork) -> anyhow::Result<Self> {
        Ok(Self(document.version, Arc::new(serde_json::to_vec(document)?)))
    }
    pub fn bytes(&self) -> usize {
        self.1.len()
    }
}

impl Controller {
    /// Listens until this process ends.
    pub fn start(socket: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let shared: Arc<Shared> = Arc::default();
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&ours);
                // Whoever is gone needs no answer.
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Ok(Self(shared))
    }

    /// Hands a document to whoever waits for one.
    pub fn publish(&self, document: &Prepared) {
        self.0.lock().document = Some((document.0, Arc::clone(&document.1)));
        self.0.changed.notify_all();
    }

    /// Waits until the node says that this version is in force and every port is ready; when that was.
    pub fn applied(&self, document: &Prepared, deadline: Duration) -> anyhow::Result<Instant> {
        let until = Instant::now() + deadline;
        let mut state = self.0.lock();
        loop {
            if let Some((report, at)) = &state.report
                && report.applied == document.0
                && report.ports.iter().all(|p| p.status == PortStatus::Ready)
            {
                return Ok(*at);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let report = state.report.as_ref().map(|(r, _)| r);
                let degraded = report.iter().flat_map(|r| &r.ports).find(|p| p.status != PortStatus::Ready);
                let applied = report.map(|r| r.applied);
                bail!("{} is not applied: {applied:?}, {degraded:?}", document.0);
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Answers one connection's requests until it ends.
fn serve(stream: &UnixStream, shared: &Shared) -> anyhow::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut target = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if target.is_empty() {
                target = line.split(' ').nth(1).context("a target")?.to_owned();
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let answer = match target.split_once('?') {
            Some((paths::NETWORK_DOCUMENT, query)) => document(query, shared)?,
            _ if target == paths::NETWORK_REPORT => {
                let at = Instant::now();
                shared.lock().report = Some((serde_json::from_slice(&body)?, at));
                shared.changed.notify_all();
                None
            }
            _ => None,
        };
        let mut stream = stream;
        match answer {
            Some(body) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
                stream.write_all(format!("{head} {}\r\n\r\n", body.len()).as_bytes())?;
                stream.write_all(&body)?;
            }
            None => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
        }
    }
}

/// A document that is newer than the one that is known, as soon as there is one.
fn document(query: &str, shared: &Shared) -> anyhow::Result<Option<Arc<Vec<u8>>>> {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value).context("a complete query")
    };
    let after: DocumentVersion = value("after")?.parse()?;
    let until = Instant::now() + Duration::from_secs(value("wait")?.parse()?);
    let mut state = shared.lock();
    loop {
        if let Some((version, body)) = &state.document
            && *version > after
        {
            return Ok(Some(Arc::clone(body)));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
