//! The link to the controllers: pulls documents, posts reports.
//!
//! Assumes nothing about whether anybody answers. Promises that every call ends by its deadline with an answer or a
//! typed error, that answers are bounded in size, that a connection is kept between calls and replaced when it breaks,
//! and that a call which a controller sends on (503 and `Retry-After`: it does not lead) is tried at every other one.
//! How a connection is made is the [`Transport`]'s business: a unix socket in one process, TLS between servers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gon_types::DocumentVersion;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

/// How long a controller may hold a long poll (its own default is 25 s).
pub const WAIT: Duration = Duration::from_secs(25);
/// How much longer than [`WAIT`] a long poll may take before its connection is given up.
const SLACK: Duration = Duration::from_secs(10);
/// How long a report may take.
const REPORT_DEADLINE: Duration = Duration::from_secs(10);
/// How long making a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a connection is kept: certificates are looked at when one is made.
const CONNECTION_AGE: Duration = Duration::from_secs(600);
/// The largest answer that is read.
const ANSWER_LIMIT: usize = 32 << 20;

/// A byte stream to a controller.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One of the places a transport leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(pub Arc<str>);

/// How to reach the controllers.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// A new connection.
    async fn connect(&self) -> io::Result<Box<dyn Stream>>;
    /// Where it leads, for messages.
    fn describe(&self) -> String;

    /// A new connection, and where it leads.
    async fn connect_somewhere(&self) -> io::Result<(Box<dyn Stream>, Place)> {
        Ok((self.connect().await?, Place::default()))
    }
    /// How many places there are.
    fn places(&self) -> usize {
        1
    }
    /// Whoever answers there sends us on: the next connection is to go elsewhere.
    fn leave(&self, _place: &Place) {}
}

/// A random part of `pause`: clients that lost the same controller do not come back as one (full jitter).
#[must_use]
pub fn jitter(pause: Duration) -> Duration {
    // The last bits of a UUIDv7 are random.
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    pause.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// The controllers of the same machine.
#[derive(Debug, Clone)]
pub struct UnixTransport(PathBuf);

impl UnixTransport {
    /// Over the socket at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}
#[async_trait]
impl Transport for UnixTransport {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(tokio::net::UnixStream::connect(&self.0).await?))
    }
    fn describe(&self) -> String {
        self.0.display().to_string()
    }
}

/// Why a call did not bring an answer. All of them are worth trying again later but [`LinkError::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody answers there.
    #[error("no controller answers at {place}")]
    Connect {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke in the middle of a call.
    #[error("the connection to the controller broke")]
    Broken(#[source] hyper::Error),
    /// No answer within the deadline.
    #[error("the controller did not answer within {0:?}")]
    Deadline(Duration),
    /// It answered, but not well.
    #[error("the controller answered {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The beginning of what it said.
        body: String,
    },
    /// Its answer is not what was asked for.
    #[error("the controller's answer cannot be read: {0}")]
    Unreadable(String),
}

impl LinkError {
    /// Whether it is worth trying again without anything having changed here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            Self::Unreadable(_) => false,
            _ => true,
        }
    }
}

/// A connection that is kept.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    place: Place,
    made: Instant,
}

/// An answer, whole.
struct Answer {
    status: StatusCode,
    body: Bytes,
    /// Whether it sends us to another controller.
    elsewhere: bool,
}

/// A client of a controller. Clones share nothing but the way to it: a long poll in one does not delay a report in
/// another.
pub struct Link {
    transport: Arc<dyn Transport>,
    connection: Mutex<Option<Connection>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Link").field(&self.transport.describe()).finish()
    }
}
impl Clone for Link {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.transport))
    }
}

impl Link {
    /// A link over `transport`; connects when first used.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, connection: Mutex::new(None) }
    }
    /// A link over the unix socket at `path`.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        Self::new(Arc::new(UnixTransport::new(path)))
    }

    /// The document at `path` that is newer than `after`; waits up to [`WAIT`] for one, then `None`.
    pub async fn get_document<D: DeserializeOwned>(
        &self,
        path: &str,
        after: DocumentVersion,
    ) -> Result<Option<D>, LinkError> {
        let target = format!("{path}?after={after}&wait={}&format={}", WAIT.as_secs(), gon_proto::FORMAT);
        let (status, body) = self.call(Method::GET, &target, None, WAIT + SLACK).await?;
        match status {
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Ok(None),
            _ => read_json(&body).map(Some),
        }
    }

    /// What is at `path`.
    pub async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, LinkError> {
        let (_, body) = self.call(Method::GET, path, None, REPORT_DEADLINE).await?;
        read_json(&body)
    }

    /// Posts a report whose answer has no content worth reading.
    pub async fn post_report<R: Serialize>(&self, path: &str, report: &R) -> Result<(), LinkError> {
        self.post(path, report).await.map(drop)
    }

    /// Posts a report and reads the answer.
    pub async fn exchange<R: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        report: &R,
    ) -> Result<A, LinkError> {
        read_json(&self.post(path, report).await?)
    }

    async fn post<R: Serialize>(&self, path: &str, report: &R) -> Result<Bytes, LinkError> {
        let body = serde_json::to_vec(report).map_err(|error| LinkError::Unreadable(error.to_string()))?;
        self.call(Method::POST, path, Some(body.into()), REPORT_DEADLINE).await.map(|(_, body)| body)
    }

    async fn call(
        &self,
        method: Method,
        target: &str,
        body: Option<Bytes>,
        deadline: Duration,
    ) -> Result<(StatusCode, Bytes), LinkError> {
        let everywhere = async {
            let mut slot = self.connection.lock().await;
            let mut left = self.transport.places();
            loop {
                let answer = self.exchange_once(&mut slot, &method, target, body.clone()).await?;
                left = left.saturating_sub(1);
                if !answer.elsewhere || left == 0 {
                    return Ok(answer);
                }
            }
        };
        // The connection is not in its slot while a call is under way, so one that was abandoned is never used again.
        let answer =
            tokio::time::timeout(deadline, everywhere).await.map_err(|_| LinkError::Deadline(deadline))??;
        let Answer { status, body, .. } = answer;
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            Ok((status, body))
        } else {
            let body = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
            Err(LinkError::Refused { status: status.as_u16(), body })
        }
    }

    async fn exchange_once(
        &self,
        slot: &mut Option<Connection>,
        method: &Method,
        target: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, LinkError> {
        // A kept connection may have been closed at the other end meanwhile; a request on it then fails before it was
        // sent, and is sent again on a new one. Documents and reports are whole, so twice is once.
        let kept = slot.take().filter(|kept| kept.made.elapsed() < CONNECTION_AGE);
        let (response, connection) = match kept {
            Some(kept) => match self.send(kept, method, target, body.clone()).await {
                Ok(pair) => pair,
                Err(_) => self.send(self.connect().await?, method, target, body).await?,
            },
            None => self.send(self.connect().await?, method, target, body).await?,
        };
        let status = response.status();
        let elsewhere =
            status == StatusCode::SERVICE_UNAVAILABLE && response.headers().contains_key(header::RETRY_AFTER);
        let body = Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| LinkError::Unreadable(error.to_string()))?
            .to_bytes();
        if elsewhere {
            self.transport.leave(&connection.place);
        } else {
            *slot = Some(connection);
        }
        Ok(Answer { status, body, elsewhere })
    }

    async fn connect(&self) -> Result<Connection, LinkError> {
        let describe = || self.transport.describe();
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, self.transport.connect_somewhere());
        let (stream, place) = match connecting.await {
            Ok(Ok(connected)) => connected,
            Ok(Err(source)) => return Err(LinkError::Connect { place: describe(), source }),
            Err(_) => {
                let source = io::ErrorKind::TimedOut.into();
                return Err(LinkError::Connect { place: describe(), source });
            }
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(LinkError::Broken)?;
        // Ends when the sender is dropped or the other end closes.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the controller ended");
            }
        });
        Ok(Connection { sender, place, made: Instant::now() })
    }

    async fn send(
        &self,
        mut connection: Connection,
        method: &Method,
        target: &str,
        body: Option<Bytes>,
    ) -> Result<(Response<Incoming>, Connection), LinkError> {
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, "gon");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| LinkError::Unreadable(error.to_string()))?;
        connection.sender.ready().await.map_err(LinkError::Broken)?;
        let response = connection.sender.send_request(request).await.map_err(LinkError::Broken)?;
        Ok((response, connection))
    }
}

fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, LinkError> {
    serde_json::from_slice(body).map_err(|error| LinkError::Unreadable(error.to_string()))
}
