//! D7: wall clocks jump, and no lease notices.
//!
//! By construction: leases count on `CLOCK_BOOTTIME` (`term.rs`), waits on the runtime's monotonic clock, and etcd
//! counts on the monotonic clock of its own runtime. Shown here on a process whose wall clock is ours to set, by a
//! library that stands between it and the C library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gon_cluster::{LEADER_TTL, Liveness};
use gon_testkit::etcd;
use tokio::time::{Instant, timeout};

use crate::etcd::{SOON, site};
use crate::holder::{Holder, PLANTED};

/// Adds the seconds in a file to whatever asks for the wall clock. Everything else is as it was.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <sys/time.h>
#include <unistd.h>
static long shift(void) {
  char text[32] = "0";
  const char *path = getenv("GON_TEST_WALL");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file >= 0) { ssize_t n = read(file, text, sizeof text - 1); text[n > 0 ? n : 0] = 0; close(file); }
  return atol(text);
}
int clock_gettime(clockid_t clock, struct timespec *at) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, at);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) at->tv_sec += shift();
  return result;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"#;

/// The library, and the file that sets the clock.
struct Wall {
    directory: tempfile::TempDir,
}

impl Wall {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("wall.c");
        std::fs::write(&source, SHIM).unwrap();
        // The compiler that the build needs anyway.
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&directory.path().join("wall.so"), &source])
            .arg("-ldl")
            .status()
            .unwrap();
        assert!(compiled.success());
        let wall = Self { directory };
        wall.set(0);
        wall
    }
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
    fn set(&self, seconds: i64) {
        let (new, file) = (self.path("new"), self.path("shift"));
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, file).unwrap();
    }
    fn holder(&self, endpoints: &[String], planted: bool) -> Holder {
        let text = |path: &Path| path.display().to_string();
        let (library, file) = (text(&self.path("wall.so")), text(&self.path("shift")));
        let mut environment = vec![("LD_PRELOAD", library.as_str()), ("GON_TEST_WALL", file.as_str())];
        if planted {
            environment.push((PLANTED, "1"));
        }
        Holder::start_with(endpoints, &environment)
    }
}

/// An hour on, an hour and ten minutes back, ten years on, and to the present.
const JUMPS: [i64; 4] = [3600, -600, 315_360_000, 0];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_jumps_costs_no_leadership_and_keeps_none() {
    let cluster = etcd::one().await;
    let wall = Wall::new();
    let holder = wall.holder(&cluster.endpoints(), false);
    let other = site(&cluster);
    let next =
        tokio::spawn(async move { other.campaign("role", "other").await.map(|won| (won, Instant::now())) });
    let begun = Instant::now();
    for seconds in JUMPS {
        wall.set(seconds);
        tokio::time::sleep(LEADER_TTL / 3).await;
        let said = holder.so_far();
        assert!(said.iter().any(|word| word == "jumped"), "its clock did not jump by {seconds}: {said:?}");
        assert!(said.iter().all(|word| word != "lost"), "{seconds}");
    }
    assert!(begun.elapsed() > LEADER_TTL);
    assert!(!next.is_finished(), "nobody leads beside it");
    // Nor does a clock that went back keep what has run out: it is stopped, and the next leads in time.
    wall.set(-3600);
    holder.signal(nix::sys::signal::Signal::SIGSTOP);
    let stopped = Instant::now();
    let (won, at) = timeout(SOON, next).await.expect("≤ 15 s").unwrap().unwrap();
    println!("D7: takeover after {:?}", at - stopped);
    holder.so_far();
    holder.signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(holder.next(SOON).as_deref(), Some("lost"), "the first thing it says");
    assert!(won.holds());
}

/// The planted bug: with a lease on the wall clock the same jump ends it, so the test above would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_on_the_wall_clock_would_be_noticed() {
    let cluster = etcd::one().await;
    let wall = Wall::new();
    let holder = wall.holder(&cluster.endpoints(), true);
    for _ in 0..10 {
        assert_eq!(holder.next(SOON).as_deref(), Some("work"));
    }
    wall.set(JUMPS[0]);
    let deadline = Instant::now() + Duration::from_secs(2);
    while holder.next(Duration::from_secs(2)).as_deref() != Some("lost") {
        assert!(Instant::now() < deadline, "the clock it counts on did not jump");
    }
}
