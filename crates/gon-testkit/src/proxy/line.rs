//! One direction of one connection: what is read becomes frames, chance acts on them, a bounded queue holds them for as
//! long as they are delayed, and what is left is written.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::{Direction, End, Faults, Framer, Settings};

/// What is read at once.
const CHUNK: usize = 16 * 1024;
/// How many bytes may be on their way.
const WINDOW: usize = 1024 * 1024;
/// A frame that is longer is no frame: the rest of the connection goes through as it comes.
const LONGEST_FRAME: usize = 1024 * 1024;
/// How long a frame waits for the one it changes places with.
const PATIENCE: Duration = Duration::from_millis(50);

/// One direction of one connection.
pub(super) struct Line {
    direction: Direction,
    framer: Option<Framer>,
    dice: Dice,
    settings: watch::Receiver<Settings>,
}

/// A frame on its way.
struct Parcel {
    due: Instant,
    bytes: Vec<u8>,
    /// Given back when it has arrived.
    _place: OwnedSemaphorePermit,
}

/// Where they wait: as many as fit into the window.
struct Queue {
    window: Arc<Semaphore>,
    parcels: mpsc::UnboundedSender<Parcel>,
}

impl Line {
    pub(super) fn new(
        direction: Direction,
        framer: Option<Framer>,
        seed: u64,
        number: u64,
        settings: watch::Receiver<Settings>,
    ) -> Self {
        let side = u64::from(direction == Direction::ToClient);
        let dice = Dice(seed ^ (number * 2 + side).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self { direction, framer, dice, settings }
    }

    /// Carries bytes until they end in order, or tells how the connection is to end.
    pub(super) async fn run(self, from: ReadHalf<'_>, to: WriteHalf<'_>) -> Result<(), End> {
        let (sender, parcels) = mpsc::unbounded_channel();
        let queue = Queue { window: Arc::new(Semaphore::new(WINDOW)), parcels: sender };
        let (direction, settings) = (self.direction, self.settings.clone());
        tokio::try_join!(self.read(from, queue), write(to, parcels, direction, settings)).map(|_| ())
    }

    async fn read(mut self, mut from: ReadHalf<'_>, queue: Queue) -> Result<(), End> {
        let mut settings = self.settings.clone();
        let mut buffer = Vec::new();
        let mut held: Option<Vec<u8>> = None;
        let mut last_due = Instant::now();
        loop {
            thawed(&mut settings, self.direction).await?;
            buffer.reserve(CHUNK);
            let read = tokio::select! {
                biased;
                // It may have been frozen meanwhile.
                changed = settings.changed() => { changed.map_err(|_| End::Close)?; continue }
                () = tokio::time::sleep(PATIENCE), if held.is_some() => {
                    let faults = settings.borrow().of(self.direction);
                    self.send(&queue, held.take(), faults, &mut last_due).await?;
                    continue;
                }
                read = from.read_buf(&mut buffer) => read.map_err(|_| End::Reset)?,
            };
            let faults = settings.borrow().of(self.direction);
            while let Some(frame) = self.next_frame(&mut buffer) {
                // Thrown for every frame, whatever happens to it: what becomes of a frame depends on its place alone.
                let [drop, duplicate, swap] =
                    [faults.drop, faults.duplicate, faults.swap].map(|chance| self.dice.hits(chance));
                if drop {
                    continue;
                }
                let again = duplicate.then(|| frame.clone());
                if swap && held.is_none() {
                    held = Some(frame);
                } else {
                    self.send(&queue, Some(frame), faults, &mut last_due).await?;
                    self.send(&queue, held.take(), faults, &mut last_due).await?;
                }
                self.send(&queue, again, faults, &mut last_due).await?;
            }
            if read == 0 {
                self.send(&queue, held.take(), faults, &mut last_due).await?;
                // What does not make a frame goes through at the end.
                let rest = (!buffer.is_empty()).then(|| std::mem::take(&mut buffer));
                return self.send(&queue, rest, faults, &mut last_due).await;
            }
        }
    }

    fn next_frame(&mut self, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
        if buffer.is_empty() {
            return None;
        }
        if let Some(framer) = self.framer {
            match framer(buffer) {
                Some(length) if (1..=LONGEST_FRAME).contains(&length) => {
                    return (length <= buffer.len()).then(|| buffer.drain(..length).collect());
                }
                None if buffer.len() <= LONGEST_FRAME => return None,
                _ => self.framer = None,
            }
        }
        Some(std::mem::take(buffer))
    }

    async fn send(
        &mut self,
        queue: &Queue,
        bytes: Option<Vec<u8>>,
        faults: Faults,
        last_due: &mut Instant,
    ) -> Result<(), End> {
        let Some(bytes) = bytes else { return Ok(()) };
        let jitter = faults.jitter.mul_f64(self.dice.fraction());
        *last_due = (*last_due).max(Instant::now() + faults.delay + jitter);
        let size = u32::try_from(bytes.len().min(WINDOW)).unwrap_or(u32::MAX);
        let place = Arc::clone(&queue.window).acquire_many_owned(size).await.map_err(|_| End::Close)?;
        // The writer is gone only when the connection is.
        queue.parcels.send(Parcel { due: *last_due, bytes, _place: place }).map_err(|_| End::Close)
    }
}

async fn write(
    mut to: WriteHalf<'_>,
    mut parcels: mpsc::UnboundedReceiver<Parcel>,
    direction: Direction,
    mut settings: watch::Receiver<Settings>,
) -> Result<(), End> {
    let mut written = 0_u64;
    while let Some(parcel) = parcels.recv().await {
        tokio::time::sleep_until(parcel.due).await;
        let mut bytes = parcel.bytes.as_slice();
        while !bytes.is_empty() {
            thawed(&mut settings, direction).await?;
            let faults = settings.borrow().of(direction);
            let mut part = bytes.len();
            if let Some(cap) = faults.bytes_per_second {
                // A hundred parts a second.
                part = part.min((cap.get() as usize).div_ceil(100));
            }
            let limits = [(faults.truncate_after, End::Close), (faults.reset_after, End::Reset)];
            let limit = limits.into_iter().filter_map(|(at, end)| Some((at?, end))).min_by_key(|(at, _)| *at);
            if let Some((at, end)) = limit {
                let left = at.saturating_sub(written);
                if left == 0 {
                    return Err(end);
                }
                part = part.min(usize::try_from(left).unwrap_or(part));
            }
            to.write_all(&bytes[..part]).await.map_err(|_| End::Reset)?;
            written += part as u64;
            bytes = &bytes[part..];
            if let Some(cap) = faults.bytes_per_second {
                tokio::time::sleep(Duration::from_secs_f64(part as f64 / f64::from(cap.get()))).await;
            }
        }
    }
    to.shutdown().await.map_err(|_| End::Reset)
}

/// Waits until this direction is not frozen.
async fn thawed(settings: &mut watch::Receiver<Settings>, direction: Direction) -> Result<(), End> {
    settings.wait_for(|settings| !settings.of(direction).frozen).await.map(|_| ()).map_err(|_| End::Close)
}

/// Chance with a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// True this often of a thousand.
    fn hits(&mut self, of_a_thousand: u16) -> bool {
        self.next() % 1000 < u64::from(of_a_thousand)
    }
    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
