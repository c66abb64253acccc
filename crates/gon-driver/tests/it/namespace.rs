//! A network namespace per test: the code under test runs in it simply by being run by its threads.

use std::future::Future;

/// Runs a test in a network namespace of its own, with `lo` up. Every thread of the runtime is a child of the thread
/// that entered the namespace, and so is every process it starts.
pub fn in_namespace<F, T>(test: impl FnOnce() -> F + Send + 'static) -> T
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            gon_driver::netlink::Netlink::open().unwrap().set_up("lo", true).await.unwrap();
            test().await
        })
    };
    match std::thread::spawn(body).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Kills what a test started, also when it fails: by identity, so never anything else.
pub struct KillAtEnd(pub Vec<gon_driver::run::Pid>);

impl Drop for KillAtEnd {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = pid.signal(rustix::process::Signal::KILL);
        }
    }
}
