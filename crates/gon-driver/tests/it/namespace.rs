//! A network namespace per test: the code under test runs in it simply by being run by its threads.

use std::future::Future;
use std::path::Path;

use nix::mount::MsFlags;

/// Runs a test in a network namespace of its own, with `lo` up. Every thread of the runtime is a child of the thread
/// that entered the namespace, and so is every process it starts.
pub fn in_namespace<F, T>(test: impl FnOnce() -> F + Send + 'static) -> T
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let body = move || {
        // Mounts too, so that a test may show itself another directory in place of the machine's.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET | nix::sched::CloneFlags::CLONE_NEWNS)
            .unwrap();
        mount(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE);
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

/// Shows `source` at `target`, to this namespace only.
pub fn bind(source: &Path, target: &Path) {
    mount(Some(source), target, MsFlags::MS_BIND);
}

fn mount(source: Option<&Path>, target: &Path, flags: MsFlags) {
    nix::mount::mount(source, target, None::<&str>, flags, None::<&str>).unwrap();
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
