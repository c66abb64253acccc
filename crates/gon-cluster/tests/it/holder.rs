//! A leader in a process of its own, which a test can stop and let go on: this test binary, started again.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use gon_cluster::{EtcdConfig, EtcdLiveness, Liveness};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::etcd::SOON;

/// Where the process finds its endpoint; without it the test below does nothing.
const ENDPOINTS: &str = "GON_TEST_HOLDER";
/// How often it works.
const WORK: Duration = Duration::from_millis(5);

/// What the process does: leads, works, says when it stopped to lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holder_process() {
    let Ok(endpoints) = std::env::var(ENDPOINTS) else { return };
    let liveness = EtcdLiveness::new(EtcdConfig::new(endpoints.split(',').map(str::to_owned).collect()));
    let leads = liveness.campaign("role", "holder").await.unwrap();
    println!("@leads");
    let mut next = tokio::time::interval(WORK);
    loop {
        // As the controllers do: first whether it still leads, then work.
        tokio::select! {
            biased;
            () = leads.lost() => break,
            _ = next.tick() => println!("@work"),
        }
    }
    println!("@lost");
    assert!(!leads.holds());
}

/// The process, and what it says.
pub struct Holder {
    process: Child,
    said: Receiver<String>,
}

impl Holder {
    /// Starts it and waits until it leads.
    pub fn start(endpoints: &[String]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holder::holder_process", "--nocapture", "--test-threads=1"])
            .env(ENDPOINTS, endpoints.join(","))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test runner's own words stand before the first of ours, on its line.
                if let Some((_, word)) = line.split_once('@')
                    && sender.send(word.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let holder = Self { process, said };
        assert_eq!(holder.next(SOON).as_deref(), Some("leads"));
        holder
    }

    /// The next thing it says.
    pub fn next(&self, patience: Duration) -> Option<String> {
        self.said.recv_timeout(patience).ok()
    }

    /// Everything it has said so far.
    pub fn so_far(&self) -> Vec<String> {
        self.said.try_iter().collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
