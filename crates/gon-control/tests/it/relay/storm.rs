//! B8. Many writers whose transactions commit late and out of order, two relays at once: nothing is skipped, nothing is
//! published twice, and nothing that was rolled back is published. A planted bug shows that the check would notice.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gon_bus::{Bus, BusError, Subscription};
use gon_control::relay::{self, Nudge};
use gon_control::status::Metrics;
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use gon_store::Store;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const WRITERS: u64 = 50;
const TRANSACTIONS: u64 = 24;
/// Rows of a transaction; those that are committed are a hundred thousand together.
const ROWS: u64 = 100;

/// Remembers how often each id was published. Every n-th publish takes the doorbells and fails all the same, which is
/// what a lost confirm looks like.
#[derive(Default)]
struct Ledger {
    published: Mutex<BTreeMap<Uuid, usize>>,
    calls: AtomicUsize,
    fails_every: Option<usize>,
    failed: AtomicUsize,
}

#[async_trait]
impl Bus for Ledger {
    async fn publish(&self, doorbells: &[Doorbell]) -> Result<(), BusError> {
        // As long as a round trip: the other relay is at work meanwhile.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut published = self.published.lock().await;
        for bell in doorbells {
            *published.entry(bell.id).or_default() += 1;
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fails_every {
            Some(every) if call.is_multiple_of(every) => {
                self.failed.fetch_add(doorbells.len(), Ordering::Relaxed);
                Err(BusError::Unavailable("the confirm was lost".to_owned()))
            }
            _ => Ok(()),
        }
    }
    async fn subscribe(&self, _: &[Subject]) -> Result<Box<dyn Subscription>, BusError> {
        Err(BusError::Unavailable("only counts".to_owned()))
    }
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    committed: usize,
    skipped: usize,
    invented: usize,
    repeated: usize,
}

/// The numbers of a transaction's rows, which are their ids.
fn rows(writer: u64, transaction: u64) -> Range<u64> {
    let first = (writer * TRANSACTIONS + transaction) * ROWS;
    first..first + ROWS
}

/// Every seventh transaction is rolled back.
fn commits(writer: u64, transaction: u64) -> bool {
    !(writer + transaction).is_multiple_of(7)
}

/// One transaction: rows that take their numbers now, and a commit that comes when it comes.
async fn write(store: &Store, writer: u64, transaction: u64) {
    let rows = rows(writer, transaction);
    let (first, last) = (rows.start, rows.end - 1);
    let ending = if commits(writer, transaction) { "" } else { "do $$ begin raise 'rolled back'; end $$;" };
    let script = format!(
        "insert into outbox (subject, subject_id)
           select 'vpc', lpad(to_hex(n), 32, '0')::uuid from generate_series({first}::bigint, {last}) n;
         select pg_sleep(random() * 0.1);
         {ending}"
    );
    let result = gon_store::admin::script(store, script.leak()).await;
    assert_eq!(result.is_ok(), commits(writer, transaction), "{result:?}");
}

async fn storm(url: &str, bus: Arc<Ledger>) -> Outcome {
    // So many that every writer finds a place.
    let store = Store::connect(url, 80).await.unwrap();
    let stop = CancellationToken::new();
    let nudges = [Nudge::new(), Nudge::new()];
    let relays: Vec<_> = nudges
        .iter()
        .map(|nudge| {
            let (store, bus, metrics) = (store.clone(), Arc::clone(&bus), Arc::new(Metrics::default()));
            tokio::spawn(relay::run(store, bus as _, nudge.clone(), metrics, stop.clone()))
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, nudge) = (store.clone(), nudges[writer as usize % 2].clone());
            tokio::spawn(async move {
                for transaction in 0..TRANSACTIONS {
                    write(&store, writer, transaction).await;
                    nudge.nudge();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    // Until nothing more comes for longer than a relay goes without looking.
    let (mut before, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(2500) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = bus.published.lock().await.values().sum::<usize>();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
    stop.cancel();
    for relay in relays {
        relay.await.unwrap().unwrap();
    }
    let published = bus.published.lock().await;
    let mut wanted = BTreeSet::new();
    for writer in 0..WRITERS {
        for transaction in (0..TRANSACTIONS).filter(|transaction| commits(writer, *transaction)) {
            wanted.extend(rows(writer, transaction).map(|id| Uuid::from_u128(id.into())));
        }
    }
    Outcome {
        committed: wanted.len(),
        skipped: wanted.iter().filter(|id| !published.contains_key(id)).count(),
        invented: published.keys().filter(|id| !wanted.contains(id)).count(),
        repeated: published.values().filter(|times| **times > 1).count(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_skipped_and_none_is_published_twice() {
    let database = gon_testkit::database().await;
    let outcome = storm(&database.url, Arc::default()).await;
    assert!(matches!(outcome, Outcome { skipped: 0, invented: 0, repeated: 0, .. }), "{outcome:?}");
    assert_eq!(gon_store::relay::waiting(&database.store).await.unwrap(), 0);
    assert!(outcome.committed >= 100_000, "{outcome:?}");
    gon_testkit::did("B8", &format!("{WRITERS} writers, {} rows, each published once", outcome.committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_confirm_repeats_its_batch_and_nothing_else() {
    let database = gon_testkit::database().await;
    let bus = Arc::new(Ledger { fails_every: Some(40), ..Ledger::default() });
    let outcome = storm(&database.url, Arc::clone(&bus)).await;
    assert!(matches!(outcome, Outcome { skipped: 0, invented: 0, .. }), "{outcome:?}");
    let failed = bus.failed.load(Ordering::Relaxed);
    assert!((1..=failed).contains(&outcome.repeated), "{outcome:?}, {failed} confirms lost");
}

/// The planted bug: an outbox that is read behind a cursor, as "where seq > the last one I have seen" does. Everything
/// else is the same, and the check must find rows that were skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_would_be_noticed() {
    let database = gon_testkit::database().await;
    let planted = "alter table outbox rename to outbox_rows;
        create table position (last bigint not null);
        insert into position values (0);
        create view outbox as select * from outbox_rows where seq > (select last from position);
        create function move_on() returns trigger language plpgsql as $$
          begin
            update position set last = greatest(last, (select max(seq) from gone));
            return null;
          end $$;
        create trigger moves_on after delete on outbox_rows referencing old table as gone
          for each statement execute function move_on();";
    gon_store::admin::script(&database.store, planted).await.unwrap();
    let outcome = storm(&database.url, Arc::default()).await;
    assert!(outcome.skipped > 0 && outcome.invented == 0, "{outcome:?}");
}
