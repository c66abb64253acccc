//! JSON-RPC 1.0 over a unix socket that stays open: what both OVSDB (RFC 7047 §4) and Open vSwitch's control sockets
//! speak.
//!
//! Assumes that a call may be sent again by the caller after a broken connection, or not; it is never sent twice
//! here. Promises that a broken connection is replaced at the next call, that "echo" is answered while nobody calls,
//! and that a call ends by its deadline.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Mutex, oneshot};

/// The largest message that is read: far above a database of 10 000 ports.
const MESSAGE_LIMIT: usize = 256 << 20;

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// Nobody listens there.
    #[error("nothing answers at {path}")]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke before the answer.
    #[error("the connection to {0} broke")]
    Broken(PathBuf),
    /// No answer by the deadline.
    #[error("{0} did not answer within {1:?}")]
    Deadline(PathBuf, Duration),
    /// The other side refused.
    #[error("{method}: {error}")]
    Refused {
        /// What was asked.
        method: String,
        /// Its words.
        error: String,
    },
}

impl RpcError {
    /// Whether the connection failed, not the call.
    #[must_use]
    pub fn is_transport(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

type Waiting = Arc<StdMutex<Option<HashMap<u64, oneshot::Sender<Result<Value, Value>>>>>>;

struct Live {
    writer: Arc<Mutex<OwnedWriteHalf>>,
    waiting: Waiting,
    reader: tokio::task::JoinHandle<()>,
}
impl Drop for Live {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A question that was asked.
#[derive(Debug)]
pub(super) struct Asked {
    path: PathBuf,
    method: String,
    told: oneshot::Receiver<Result<Value, Value>>,
}

impl Asked {
    /// Waits for its answer.
    pub(super) async fn answer(self) -> Result<Value, RpcError> {
        match self.told.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(RpcError::Refused {
                method: self.method,
                error: error.as_str().map_or_else(|| error.to_string(), |text| text.trim().to_owned()),
            }),
            Err(_) => Err(RpcError::Broken(self.path)),
        }
    }
}

/// A client.
pub struct Rpc {
    path: PathBuf,
    live: Mutex<Option<Live>>,
    next: std::sync::atomic::AtomicU64,
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rpc").field(&self.path).finish()
    }
}

impl Rpc {
    /// A client of the socket at `path`; connects when first used.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), live: Mutex::new(None), next: 1.into() }
    }

    /// The socket.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls a method and waits for its result.
    pub async fn call(&self, method: &str, params: Value, deadline: Duration) -> Result<Value, RpcError> {
        match tokio::time::timeout(deadline, self.exchange(method, params)).await {
            Ok(result) => result,
            Err(_) => Err(RpcError::Deadline(self.path.clone(), deadline)),
        }
    }

    async fn exchange(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.ask(method, params).await?.answer().await
    }

    /// Asks; when this returns, the question is with the other side. For what must be asked before something else is done.
    pub(super) async fn ask(&self, method: &str, params: Value) -> Result<Asked, RpcError> {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let request = json!({"id": id, "method": method, "params": params}).to_string();
        let broken = || RpcError::Broken(self.path.clone());
        let (tell, told) = oneshot::channel();
        let (writer, waiting) = self.connection().await?;
        match &mut *lock(&waiting) {
            Some(map) => map.insert(id, tell),
            None => return Err(broken()),
        };
        let sent = writer.lock().await.write_all(request.as_bytes()).await;
        if sent.is_err() {
            *lock(&waiting) = None;
            return Err(broken());
        }
        Ok(Asked { path: self.path.clone(), method: method.to_owned(), told })
    }

    /// The connection, made anew if it has ended.
    async fn connection(&self) -> Result<(Arc<Mutex<OwnedWriteHalf>>, Waiting), RpcError> {
        let mut slot = self.live.lock().await;
        if let Some(live) = &*slot
            && lock(&live.waiting).is_some()
        {
            return Ok((Arc::clone(&live.writer), Arc::clone(&live.waiting)));
        }
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| RpcError::Connect { path: self.path.clone(), source })?;
        let (read, write) = stream.into_split();
        let writer = Arc::new(Mutex::new(write));
        let waiting: Waiting = Arc::new(StdMutex::new(Some(HashMap::new())));
        let reader = tokio::spawn(read_all(Messages::new(read), Arc::clone(&writer), Arc::clone(&waiting)));
        *slot = Some(Live { writer: Arc::clone(&writer), waiting: Arc::clone(&waiting), reader });
        Ok((writer, waiting))
    }
}

fn lock<T>(mutex: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands answers to whoever waits for them until the connection ends; then nobody waits any more.
async fn read_all<R: AsyncRead + Unpin>(
    mut messages: Messages<R>,
    writer: Arc<Mutex<OwnedWriteHalf>>,
    waiting: Waiting,
) {
    while let Ok(Some(mut message)) = messages.next().await {
        if message.get("method").and_then(Value::as_str) == Some("echo") {
            let answer = json!({"id": message["id"], "result": message["params"], "error": null});
            if writer.lock().await.write_all(answer.to_string().as_bytes()).await.is_err() {
                break;
            }
            continue;
        }
        let Some(id) = message.get("id").and_then(Value::as_u64) else { continue };
        let Some(tell) = lock(&waiting).as_mut().and_then(|map| map.remove(&id)) else { continue };
        let error = message["error"].take();
        let _ = tell.send(if error.is_null() { Ok(message["result"].take()) } else { Err(error) });
    }
    *lock(&waiting) = None;
}

/// Cuts a byte stream into JSON objects, which follow each other without any separator.
struct Messages<R> {
    reader: R,
    buffer: Vec<u8>,
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl<R: AsyncRead + Unpin> Messages<R> {
    fn new(reader: R) -> Self {
        Self { reader, buffer: vec![], scanned: 0, depth: 0, in_string: false, escaped: false }
    }

    /// The next object; `None` when the stream has ended.
    async fn next(&mut self) -> io::Result<Option<Value>> {
        loop {
            if let Some(end) = self.scan() {
                let message = serde_json::from_slice(&self.buffer[..end]).map_err(io::Error::from);
                self.buffer.drain(..end);
                self.scanned = 0;
                return message.map(Some);
            }
            if self.buffer.len() > MESSAGE_LIMIT {
                return Err(io::Error::other("a message without end"));
            }
            self.buffer.reserve(16 << 10);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Looks at bytes not seen before; the end of the first object, if it is there.
    fn scan(&mut self) -> Option<usize> {
        while let Some(byte) = self.buffer.get(self.scanned) {
            self.scanned += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.scanned);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn objects_are_cut_out_of_any_chunks() {
        let stream = br#"{"a":"}\"{"}  {"b":[1,{"c":"\\"}]}{"d":null}"#;
        for chunk in [1, 3, 7, 1000] {
            let mut builder = Vec::new();
            for part in stream.chunks(chunk) {
                builder.push(part.to_vec());
            }
            let (mut write, read) = tokio::io::duplex(8);
            let feed = tokio::spawn(async move {
                for part in builder {
                    write.write_all(&part).await.unwrap();
                }
            });
            let mut messages = Messages::new(read);
            assert_eq!(messages.next().await.unwrap().unwrap(), json!({"a": "}\"{"}));
            assert_eq!(messages.next().await.unwrap().unwrap(), json!({"b": [1, {"c": "\\"}]}));
            assert_eq!(messages.next().await.unwrap().unwrap(), json!({"d": null}));
            assert!(messages.next().await.unwrap().is_none());
            feed.await.unwrap();
        }
    }
}
