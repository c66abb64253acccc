//! A client of QEMU's machine protocol (QMP): one JSON object a line over a unix socket.
//!
//! Assumes that nobody else talks to the same socket: QEMU serves one client at a time and lets a second one wait
//! (rule R8: one owner per socket). Promises that every call ends by its deadline, that answers go to who asked
//! whatever events come in between, and that nothing QEMU says is decoded more strictly than it is used: versions 6.2 to
//! 10 differ in what they add.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Longest line that is read; a console ring in base64 is the longest that is expected.
const LINE_LIMIT: u64 = 4 << 20;
/// Events that may wait to be looked at. More are dropped: an event only says "look", what is true is asked for.
const EVENTS: usize = 64;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens on the socket.
    #[error("no QEMU answers on {path}")]
    Connect {
        /// Which socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What answered does not speak QMP.
    #[error("not QMP: {0}")]
    Protocol(String),
    /// QEMU refused the command.
    #[error("{command}: {description} ({class})")]
    Refused {
        /// Which command.
        command: String,
        /// QEMU's error class.
        class: String,
        /// QEMU's own words.
        description: String,
    },
    /// No answer in time.
    #[error("{what} took longer than {after:?}")]
    Deadline {
        /// Which command, or `connecting`.
        what: String,
        /// The deadline.
        after: Duration,
    },
    /// QEMU closed the connection: it ended.
    #[error("QEMU closed the connection")]
    Closed,
}

impl QmpError {
    /// Whether QEMU may be there and answer later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Connect { .. })
    }
}

/// Something QEMU said without being asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name (`SHUTDOWN`).
    pub name: String,
    /// Its data, `null` if it has none.
    pub data: Value,
}

/// The events of a connection; ends when QEMU does.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the connection is closed.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// A connection. Clones are the same connection.
#[derive(Debug, Clone)]
pub struct Qmp {
    shared: Arc<Shared>,
    version: (u32, u32, u32),
}

#[derive(Debug)]
struct Shared {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    next: AtomicU64,
    reader: tokio::task::AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The reader holds the other half of the socket: without this a forgotten connection would stay open, and
        // QEMU would let nobody else in.
        self.reader.abort();
    }
}

type Answer = Result<Value, (String, String)>;
type Waiting = HashMap<u64, oneshot::Sender<Answer>>;

impl Qmp {
    /// Connects, reads the greeting and leaves the negotiation mode.
    pub async fn connect(path: &Path, deadline: Duration) -> Result<(Self, Events), QmpError> {
        let late = || QmpError::Deadline { what: "connecting".to_owned(), after: deadline };
        tokio::time::timeout(deadline, Self::connect_now(path, deadline)).await.map_err(|_| late())?
    }

    async fn connect_now(path: &Path, deadline: Duration) -> Result<(Self, Events), QmpError> {
        let failed = |source| QmpError::Connect { path: path.to_owned(), source };
        let (address, _dir) = socket_address(path).map_err(failed)?;
        let stream = UnixStream::connect(&address).await.map_err(failed)?;
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let greeting = read_line(&mut reader).await.map_err(failed)?.ok_or(QmpError::Closed)?;
        let version = version_of(&greeting)
            .ok_or_else(|| QmpError::Protocol(greeting.to_string().chars().take(200).collect()))?;

        let (events, receiver) = mpsc::channel(EVENTS);
        // The reader starts when it has been told what to fill.
        let (give, take) = oneshot::channel::<std::sync::Weak<Shared>>();
        let task = tokio::spawn(async move {
            if let Ok(shared) = take.await {
                read_all(reader, &shared, &events).await;
                if let Some(shared) = shared.upgrade() {
                    lock(&shared.waiting).take();
                }
            }
        });
        let shared = Arc::new(Shared {
            writer: tokio::sync::Mutex::new(writer),
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
            reader: task.abort_handle(),
        });
        let _ = give.send(Arc::downgrade(&shared));
        let qmp = Self { shared, version };
        qmp.execute("qmp_capabilities", Value::Null, deadline).await?;
        Ok((qmp, Events(receiver)))
    }

    /// The version in the greeting: major, minor, micro.
    #[must_use]
    pub fn version(&self) -> (u32, u32, u32) {
        self.version
    }

    /// Runs a command. `arguments` is an object, or `null` for none.
    pub async fn execute(
        &self,
        command: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let mut request = json!({"execute": command, "id": id});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let (give, take) = oneshot::channel();
        match lock(&self.shared.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, give),
            None => return Err(QmpError::Closed),
        };
        let exchange = async {
            let mut line = request.to_string();
            line.push('\n');
            self.shared.writer.lock().await.write_all(line.as_bytes()).await.map_err(|_| QmpError::Closed)?;
            take.await.map_err(|_| QmpError::Closed)
        };
        let answer = tokio::time::timeout(deadline, exchange).await;
        if let Some(waiting) = lock(&self.shared.waiting).as_mut() {
            waiting.remove(&id);
        }
        match answer {
            Err(_) => Err(QmpError::Deadline { what: command.to_owned(), after: deadline }),
            Ok(Err(error)) => Err(error),
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err((class, description)))) => {
                Err(QmpError::Refused { command: command.to_owned(), class, description })
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads until QEMU closes, or says something that is no line of JSON.
async fn read_all(
    mut reader: BufReader<OwnedReadHalf>,
    shared: &std::sync::Weak<Shared>,
    events: &mpsc::Sender<Event>,
) {
    loop {
        let mut message = match read_line(&mut reader).await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "QMP connection broke");
                return;
            }
        };
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            let event = Event { name: name.to_owned(), data: message["data"].take() };
            let _ = events.try_send(event);
            continue;
        }
        let Some(shared) = shared.upgrade() else { return };
        let waiter = message.get("id").and_then(Value::as_u64).and_then(|id| {
            lock(&shared.waiting).as_mut().and_then(|waiting: &mut Waiting| waiting.remove(&id))
        });
        let Some(waiter) = waiter else { continue };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let _ = waiter.send(match message.get("error") {
            Some(error) => Err((text(&error["class"]), text(&error["desc"]))),
            None => Ok(message["return"].take()),
        });
    }
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Value>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = reader.take(LINE_LIMIT).read_until(b'\n', &mut line).await?;
        if n == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            let what = if n as u64 == LINE_LIMIT { "a line is too long" } else { "it ended in a line" };
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if !line.trim_ascii().is_empty() {
            return serde_json::from_slice(&line).map(Some).map_err(io::Error::from);
        }
    }
}

fn version_of(greeting: &Value) -> Option<(u32, u32, u32)> {
    let version = greeting.get("QMP")?.get("version")?.get("qemu")?;
    let part = |name: &str| version.get(name)?.as_u64()?.try_into().ok();
    Some((part("major")?, part("minor")?, part("micro")?))
}

/// A socket's path in the form a socket address can hold: one that is too long goes through a descriptor of its
/// directory, which must live as long as the address is used.
pub(crate) fn socket_address(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    use std::os::unix::ffi::OsStrExt;
    // `sun_path` has 108 bytes with its terminating zero.
    if path.as_os_str().as_bytes().len() < 108 {
        return Ok((path.to_owned(), None));
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, rustix::fs::Mode::empty())?;
    let address = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    Ok((address, Some(dir)))
}

/// A listening socket at `path` (mode 0600, ours) for QEMU to inherit, so that it needs no way to the path itself.
/// Replaces a socket left over there.
pub(crate) fn listen(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::PermissionsExt;
    let (address, _dir) = socket_address(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&address)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    const SECOND: Duration = Duration::from_secs(1);

    /// A QEMU that greets, accepts the negotiation and then plays `script`: (what it must read, what it says).
    async fn fake(listener: UnixListener, script: Vec<(&'static str, String)>) {
        let (stream, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let greeting = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "x"}, "capabilities": ["oob", "new"]}}"#;
        writer.write_all(format!("{greeting}\r\n").as_bytes()).await.unwrap();
        for (expected, said) in
            [("qmp_capabilities", "{\"return\": {}, \"id\": 1}".to_owned())].into_iter().chain(script)
        {
            let line = lines.next_line().await.unwrap().unwrap();
            assert!(line.contains(expected), "{line}");
            writer.write_all(format!("{said}\r\n").as_bytes()).await.unwrap();
        }
    }

    async fn with(script: Vec<(&'static str, String)>) -> (Qmp, Events, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        tokio::spawn(fake(UnixListener::bind(&path).unwrap(), script));
        let (qmp, events) = Qmp::connect(&path, SECOND).await.unwrap();
        (qmp, events, dir)
    }

    #[tokio::test]
    async fn answers_find_who_asked_and_events_do_not_disturb() {
        let (qmp, mut events, _dir) = with(vec![(
            "query-status",
            "{\"event\": \"RTC_CHANGE\", \"timestamp\": {}}\r\n{\"return\": {\"stray\": 1}, \"id\": 77}\r\n{\"return\": {\"status\": \"a-new-word\"}, \"id\": 2}".to_owned(),
        )])
        .await;
        assert_eq!(qmp.version(), (10, 0, 2));
        let status = qmp.execute("query-status", Value::Null, SECOND).await.unwrap();
        assert_eq!(status["status"], "a-new-word");
        let event = events.next().await.unwrap();
        assert_eq!((event.name.as_str(), event.data), ("RTC_CHANGE", Value::Null));
        // The fake has ended: calls and events say so.
        assert!(matches!(qmp.execute("cont", Value::Null, SECOND).await, Err(QmpError::Closed)));
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_qemus_words() {
        let said = r#"{"error": {"class": "GenericError", "desc": "no such thing"}, "id": 2}"#;
        let (qmp, _events, _dir) = with(vec![("device_del", said.to_owned())]).await;
        let error = qmp.execute("device_del", json!({"id": "x"}), SECOND).await.unwrap_err();
        assert_eq!(error.to_string(), "device_del: no such thing (GenericError)");
        assert!(!error.is_transient());
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let (qmp, _events, _dir) =
            with(vec![("stop", "{\"event\": \"STOP\"}".to_owned()), ("never", String::new())]).await;
        let error = qmp.execute("stop", Value::Null, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, QmpError::Deadline { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_is_not_qmp_is_refused() {
        for said in ["{\"hello\": 1}\n", "HTTP/1.1 400\n", ""] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            let listener = UnixListener::bind(&path).unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(said.as_bytes()).await.unwrap();
            });
            assert!(Qmp::connect(&path, SECOND).await.is_err(), "{said}");
        }
    }

    #[tokio::test]
    async fn a_path_longer_than_a_socket_address_works() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("qmp.sock");
        let fd = listen(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::from(fd);
        listener.set_nonblocking(true).unwrap();
        tokio::spawn(fake(UnixListener::from_std(listener).unwrap(), vec![]));
        Qmp::connect(&path, SECOND).await.unwrap();
    }
}
