//! A leader in a process of its own, which a test can stop and let go on: this test binary, started again.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime};

use gon_cluster::{EtcdConfig, EtcdLiveness, LEADER_TTL, Liveness};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::etcd::SOON;

/// Where the process finds its endpoint; without it the test below does nothing.
const ENDPOINTS: &str = "GON_TEST_HOLDER";
/// With it, the process trusts the wall clock.
pub const PLANTED: &str = "GON_TEST_HOLDER_TRUSTS_THE_WALL";
/// A wall clock that goes further than this between two looks has jumped.
const JUMP: Duration = Duration::from_secs(60);
/// How often it works.
const WORK: Duration = Duration::from_millis(5);

/// What the process does: leads, works, says when it stopped to lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holder_process() {
    let Ok(endpoints) = std::env::var(ENDPOINTS) else { return };
    let liveness = EtcdLiveness::new(EtcdConfig::new(endpoints.split(',').map(str::to_owned).collect()));
    let leads = liveness.campaign("role", "holder").await.unwrap();
    let mut next = tokio::time::interval(WORK);
    let mut wall = SystemTime::now();
    let mut planted = std::env::var_os(PLANTED).map(|_| SystemTime::now());
    // Whoever hears it may turn the clock: what it was has to be known before.
    println!("@leads");
    loop {
        // As the controllers do: first whether it still leads, then work.
        tokio::select! {
            biased;
            () = leads.lost() => break,
            _ = next.tick() => println!("@work"),
        }
        let now = SystemTime::now();
        if now.duration_since(wall).unwrap_or_else(|error| error.duration()) > JUMP {
            println!("@jumped");
        }
        wall = now;
        // The planted bug: a lease that counts on the wall clock, renewed as often as the real one.
        if let Some(renewed) = &mut planted {
            match now.duration_since(*renewed) {
                Ok(age) if age > LEADER_TTL => break,
                Ok(age) if age < LEADER_TTL / 4 => {}
                _ => *renewed = now,
            }
        }
    }
    println!("@lost");
}

/// The process, and what it says.
pub struct Holder {
    process: Child,
    said: Receiver<String>,
}

impl Holder {
    /// Starts it and waits until it leads.
    pub fn start(endpoints: &[String]) -> Self {
        Self::start_with(endpoints, &[])
    }

    /// The same with these in its environment.
    pub fn start_with(endpoints: &[String], environment: &[(&str, &str)]) -> Self {
        let endpoints = endpoints.join(",");
        let environment = [environment, &[(ENDPOINTS, endpoints.as_str())]].concat();
        Self::run("holder::holder_process", &environment)
    }

    /// Starts another test of this binary as a process, and waits until it leads.
    pub fn run(test: &str, environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .envs(environment.iter().copied())
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

    /// Whether it is stopped.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
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
