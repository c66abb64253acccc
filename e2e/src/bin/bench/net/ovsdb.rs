//! A client of an OVSDB server (RFC 7047) that stays connected and sees what changes, as the peer's own do.

use std::collections::HashMap;
use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::{Value, json};

/// Rows of one table, by their UUIDs.
pub type Rows = HashMap<String, Value>;

#[derive(Debug, Default)]
struct State {
    answers: HashMap<u64, Value>,
    rows: HashMap<String, Rows>,
    closed: bool,
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
pub struct Client {
    shared: Arc<Shared>,
    writer: Arc<Mutex<UnixStream>>,
    database: &'static str,
    next: AtomicU64,
}

impl Drop for Client {
    fn drop(&mut self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writer.shutdown(std::net::Shutdown::Both);
    }
}

fn send(writer: &Mutex<UnixStream>, message: &Value) -> std::io::Result<()> {
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    writer.write_all(message.to_string().as_bytes())
}

/// Takes what a monitor says into account.
fn update(rows: &mut HashMap<String, Rows>, changes: &Value) {
    for (table, changed) in changes.as_object().into_iter().flatten() {
        let rows = rows.entry(table.clone()).or_default();
        for (uuid, change) in changed.as_object().into_iter().flatten() {
            match change.get("new") {
                Some(new) => rows.insert(uuid.clone(), new.clone()),
                None => rows.remove(uuid),
            };
        }
    }
}

impl Client {
    /// Connects, and watches columns of a table.
    pub fn connect(
        socket: &Path,
        database: &'static str,
        table: &str,
        columns: &[&str],
    ) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        let writer = Arc::new(Mutex::new(stream.try_clone()?));
        let shared: Arc<Shared> = Arc::default();
        let (ours, answers) = (Arc::clone(&shared), Arc::clone(&writer));
        std::thread::spawn(move || {
            let messages = serde_json::Deserializer::from_reader(BufReader::new(stream)).into_iter::<Value>();
            for message in messages.map_while(Result::ok) {
                match message["method"].as_str() {
                    Some("echo") => {
                        let answer = json!({"id": message["id"], "result": message["params"], "error": null});
                        let _ = send(&answers, &answer);
                    }
                    Some(_) => update(&mut ours.lock().rows, &message["params"][1]),
                    None => {
                        let id = message["id"].as_u64().unwrap_or_default();
                        let mut state = ours.lock();
                        if id == 0 {
                            update(&mut state.rows, &message["result"]);
                        }
                        state.answers.insert(id, message);
                    }
                }
                ours.changed.notify_all();
            }
            ours.lock().closed = true;
            ours.changed.notify_all();
        });
        let client = Self { shared, writer, database, next: AtomicU64::new(0) };
        client.call("monitor", json!([database, "m", {table: {"columns": columns}}]))?;
        Ok(client)
    }

    fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        send(&self.writer, &json!({"method": method, "params": params, "id": id}))?;
        let mut found = None;
        self.until(Duration::from_secs(60), |state| {
            found = state.answers.remove(&id);
            found.is_some()
        })?;
        let mut answer = found.unwrap_or_default();
        ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].take())
    }

    fn until(&self, deadline: Duration, mut good: impl FnMut(&mut State) -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + deadline;
        let mut state = self.shared.lock();
        while !good(&mut state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed {
                bail!("{} did not do it within {} s", self.database, deadline.as_secs());
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// One transaction; the results of its operations.
    pub fn transact(&self, operations: Vec<Value>) -> anyhow::Result<Vec<Value>> {
        let mut params = vec![json!(self.database)];
        params.extend(operations);
        let Value::Array(results) = self.call("transact", Value::Array(params))? else {
            bail!("an answer that is no list");
        };
        if let Some(failed) = results.iter().find(|r| r.get("error").is_some_and(|e| !e.is_null())) {
            bail!("{}: {failed}", self.database);
        }
        Ok(results)
    }

    /// Waits until rows of a table are as they should be.
    pub fn holds(&self, table: &str, deadline: Duration, good: impl Fn(&Rows) -> bool) -> anyhow::Result<()> {
        self.until(deadline, |state| state.rows.get(table).is_some_and(&good))
    }
}
