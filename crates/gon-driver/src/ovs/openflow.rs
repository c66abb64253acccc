//! The OpenFlow connection to a bridge: opened once, used for every change.
//!
//! Assumes the messages of [`gon_net::openflow`]. Promises that a change is atomic but for what the switch refuses of it,
//! that it is in the switch's tables when [`Switch::apply`] returns, that the switch's "are you there?" is answered, and
//! that a connection that broke says so at once ([`Switch::closed`]) and never pretends to work again: whoever holds
//! it makes a new one and compares what is installed, for the switch may have been restarted.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use gon_net::openflow::{self, BundleStep, FlowStats, Incoming, SwitchError};
use gon_net::{Flow, FlowMod};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, watch};

/// How long the switch may take for a greeting.
const GREETING: Duration = Duration::from_secs(5);
/// How long it may take for a bundle or a dump, however large.
const ANSWER: Duration = Duration::from_secs(10);

/// Why a request to the switch failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenFlowError {
    /// Nobody listens there.
    #[error("the bridge does not answer")]
    Connect(#[source] io::Error),
    /// The connection broke; what was asked may or may not have happened.
    #[error("the connection to the bridge broke")]
    Broken,
    /// No answer by the deadline: the connection is given up.
    #[error("the bridge did not answer within {0:?}")]
    Deadline(Duration),
    /// It speaks another version.
    #[error("the bridge does not speak OpenFlow 1.4")]
    Version,
    /// It refused; nothing of the request happened.
    #[error("the bridge refused")]
    Refused(#[source] SwitchError),
    /// It made none of the changes, and does not say which one is to blame.
    #[error("the bridge made none of the changes")]
    Uncommitted,
}

impl OpenFlowError {
    /// Whether a new connection is needed.
    #[must_use]
    pub fn is_transport(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Uncommitted)
    }
}

/// First and last number of what was asked, and where the answers go.
type Waiting = Arc<StdMutex<BTreeMap<u32, (u32, mpsc::UnboundedSender<(u32, Incoming)>)>>>;

/// A change that the switch refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its place among the changes.
    pub place: usize,
    /// Why.
    pub error: SwitchError,
}

/// An open connection to a bridge.
#[derive(Debug)]
pub struct Switch {
    writer: Arc<Mutex<OwnedWriteHalf>>,
    waiting: Waiting,
    closed: watch::Receiver<bool>,
    reader: tokio::task::JoinHandle<()>,
    next: AtomicU32,
}
impl Drop for Switch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Switch {
    /// Connects to the bridge's management socket (`RUNDIR/BRIDGE.mgmt`) and exchanges greetings.
    pub async fn connect(socket: &Path) -> Result<Self, OpenFlowError> {
        let stream = UnixStream::connect(socket).await.map_err(OpenFlowError::Connect)?;
        let (read, write) = stream.into_split();
        let writer = Arc::new(Mutex::new(write));
        let waiting = Waiting::default();
        let (close, closed) = watch::channel(false);
        let (greet, mut greeted) = mpsc::unbounded_channel();
        lock(&waiting).insert(0, (0, greet));
        let reader = {
            let (writer, waiting) = (Arc::clone(&writer), Arc::clone(&waiting));
            tokio::spawn(async move {
                if let Err(error) = read_all(read, &writer, &waiting).await {
                    tracing::debug!(%error, "the connection to the bridge ended");
                }
                let _ = close.send(true);
                // Whoever waits for an answer sees its channel close.
                lock(&waiting).clear();
            })
        };
        let switch = Self { writer, waiting, closed, reader, next: AtomicU32::new(1) };
        switch.send(&openflow::hello(0)).await?;
        match tokio::time::timeout(GREETING, greeted.recv()).await {
            Ok(Some((_, Incoming::Hello(true)))) => Ok(switch),
            Ok(Some(_)) => Err(OpenFlowError::Version),
            Ok(None) => Err(OpenFlowError::Broken),
            Err(_) => Err(OpenFlowError::Deadline(GREETING)),
        }
    }

    /// Resolves when the connection has ended.
    pub async fn closed(&self) {
        let mut closed = self.closed.clone();
        // An error means that the reader is gone, which is the same.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Makes all the changes at once, but for those that the switch refuses: says which these are. One bad flow must not keep
    /// a revoked permission alive (rule R12).
    pub async fn apply(&self, changes: &[FlowMod<'_>]) -> Result<Vec<Refused>, OpenFlowError> {
        let mut left: Vec<usize> = (0..changes.len()).collect();
        let mut refused = Vec::new();
        while !left.is_empty() {
            let chosen: Vec<FlowMod<'_>> = left.iter().map(|place| changes[*place]).collect();
            let (made, bad) = self.exchange(&chosen).await?;
            if !made && bad.is_empty() {
                return Err(OpenFlowError::Uncommitted);
            }
            let places: Vec<usize> = bad.iter().map(|(n, _)| left[*n]).collect();
            refused.extend(
                bad.into_iter().zip(&places).map(|((_, error), place)| Refused { place: *place, error }),
            );
            if made {
                break;
            }
            left.retain(|place| !places.contains(place));
        }
        Ok(refused)
    }

    /// One exchange: whether the changes were made, and which were not, in their order. The switch looks at its messages once in
    /// a round through all its ports, which takes milliseconds where it has a thousand; so nothing is waited for between.
    async fn exchange(
        &self,
        changes: &[FlowMod<'_>],
    ) -> Result<(bool, Vec<(usize, SwitchError)>), OpenFlowError> {
        let count = u32::try_from(changes.len()).unwrap_or(u32::MAX - 2);
        let xid = self.numbers(count.saturating_add(1));
        let message = match changes {
            // Atomic by itself.
            [change] => {
                let mut message = openflow::flow_mod(xid + 1, *change);
                message.extend(openflow::barrier_request(xid));
                message
            }
            _ => openflow::bundle(xid, xid, changes),
        };
        let mut bad = Vec::new();
        let mut made = false;
        let mut answers = self.ask(xid..=xid + count, &message).await?;
        answers
            .until(|number, message| match message {
                Incoming::BarrierReply | Incoming::BundleReply { step: BundleStep::Commit, .. } => {
                    made = true;
                    Some(Ok(()))
                }
                // Of the whole, after that of the change it is for.
                Incoming::Error(_) if number == xid => Some(Ok(())),
                Incoming::Error(error) => {
                    bad.push(((number - xid - 1) as usize, error));
                    None
                }
                _ => None,
            })
            .await?;
        bad.sort_by_key(|(place, _)| *place);
        Ok((made, bad))
    }

    /// The flows whose cookie agrees with `cookie` in the bits of `mask`; with (0, 0) all.
    pub async fn flows(&self, cookie: u64, mask: u64) -> Result<Vec<FlowStats>, OpenFlowError> {
        let xid = self.numbers(1);
        let mut answers = self.ask(xid..=xid, &openflow::flow_stats_request(xid, cookie, mask)).await?;
        let mut all = Vec::new();
        answers
            .until(|_, message| match message {
                Incoming::FlowStats { flows, more } => {
                    all.extend(flows);
                    (!more).then_some(Ok(()))
                }
                Incoming::Error(error) => Some(Err(OpenFlowError::Refused(error))),
                _ => None,
            })
            .await?;
        Ok(all)
    }

    /// Adds a flow that is there already, which changes nothing but makes the switch compare its cache with its tables. Does
    /// not wait for it.
    pub async fn touch(&self, flow: &Flow) -> Result<(), OpenFlowError> {
        self.send(&openflow::flow_mod(self.numbers(1), FlowMod::Add(flow))).await
    }

    /// Waits until everything sent before is done.
    pub async fn barrier(&self) -> Result<(), OpenFlowError> {
        let xid = self.numbers(1);
        let mut answers = self.ask(xid..=xid, &openflow::barrier_request(xid)).await?;
        answers
            .until(|_, message| match message {
                Incoming::BarrierReply => Some(Ok(())),
                Incoming::Error(error) => Some(Err(OpenFlowError::Refused(error))),
                _ => None,
            })
            .await
    }

    /// The first of so many numbers in a row that no request under way has; 0 is the greeting's.
    fn numbers(&self, count: u32) -> u32 {
        loop {
            let first = self.next.fetch_add(count, Ordering::Relaxed);
            if first != 0 && first.checked_add(count).is_some() {
                return first;
            }
        }
    }

    async fn ask(&self, numbers: RangeInclusive<u32>, bytes: &[u8]) -> Result<Answers<'_>, OpenFlowError> {
        let (tell, told) = mpsc::unbounded_channel();
        let (first, last) = numbers.into_inner();
        lock(&self.waiting).insert(first, (last, tell));
        let answers = Answers { waiting: &self.waiting, first, told };
        if self.is_closed() {
            return Err(OpenFlowError::Broken);
        }
        match tokio::time::timeout(ANSWER, self.send(bytes)).await {
            Ok(sent) => sent.map(|()| answers),
            Err(_) => Err(OpenFlowError::Deadline(ANSWER)),
        }
    }

    async fn send(&self, bytes: &[u8]) -> Result<(), OpenFlowError> {
        self.writer.lock().await.write_all(bytes).await.map_err(|_| OpenFlowError::Broken)
    }
}

/// The answers to one request; forgetting them ends the wait.
struct Answers<'a> {
    waiting: &'a Waiting,
    first: u32,
    told: mpsc::UnboundedReceiver<(u32, Incoming)>,
}
impl Drop for Answers<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.first);
    }
}
impl Answers<'_> {
    async fn until(
        &mut self,
        mut judge: impl FnMut(u32, Incoming) -> Option<Result<(), OpenFlowError>>,
    ) -> Result<(), OpenFlowError> {
        let wait = async {
            while let Some((number, message)) = self.told.recv().await {
                if let Some(verdict) = judge(number, message) {
                    return verdict;
                }
            }
            Err(OpenFlowError::Broken)
        };
        tokio::time::timeout(ANSWER, wait).await.unwrap_or(Err(OpenFlowError::Deadline(ANSWER)))
    }
}

fn lock<T>(mutex: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_all(
    mut read: OwnedReadHalf,
    writer: &Mutex<OwnedWriteHalf>,
    waiting: &Waiting,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let mut used = 0;
        while let Some((received, length)) = openflow::decode(&buffer[used..]).map_err(io::Error::other)? {
            used += length;
            match received.message {
                Incoming::EchoRequest(payload) => {
                    let answer = openflow::echo_reply(received.xid, &payload);
                    writer.lock().await.write_all(&answer).await?;
                }
                // The switch numbers its greeting as it likes.
                message @ Incoming::Hello(_) => hand_over(waiting, 0, message),
                message => hand_over(waiting, received.xid, message),
            }
        }
        buffer.drain(..used);
        buffer.reserve(64 << 10);
        if read.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

fn hand_over(waiting: &Waiting, xid: u32, message: Incoming) {
    let waiting = lock(waiting);
    let asked = waiting.range(..=xid).next_back().filter(|(_, (last, _))| xid <= *last);
    if let Some((_, (_, tell))) = asked {
        let _ = tell.send((xid, message));
    } else if let Incoming::Error(error) = message {
        tracing::warn!(%error, xid, "an error from the bridge that nobody asked for");
    }
}
