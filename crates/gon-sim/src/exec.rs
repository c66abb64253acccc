//! Virtual time and the tasks that live in it: one thread, no clock, no runtime.
//!
//! A task belongs to a process. Killing a process drops its tasks where they stand, which is what `kill -9` does to
//! volatile state; a process that is stopped (`SIGSTOP`) is not polled until it goes on. Whatever happens at the same
//! microsecond happens in the order in which it was asked for.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Microseconds since the beginning.
pub type Time = u64;
/// A millisecond.
pub const MS: Time = 1_000;
/// A second.
pub const S: Time = 1_000_000;

/// A process: index into the executor's table.
pub type ProcId = usize;
type TaskId = usize;
type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    proc: ProcId,
    /// Taken out while it is polled.
    task: Option<Task>,
    live: bool,
}

#[derive(Default)]
struct Proc {
    alive: bool,
    stopped: bool,
    /// Raised at each start.
    life: u64,
    tasks: BTreeSet<TaskId>,
    stalled: Vec<TaskId>,
}

/// The executor.
#[derive(Default)]
pub struct Exec {
    now: Cell<Time>,
    sequence: Cell<u64>,
    current: Cell<TaskId>,
    polls: Cell<u64>,
    digest: Cell<u64>,
    timers: RefCell<BinaryHeap<Reverse<(Time, u64, TaskId)>>>,
    ready: RefCell<VecDeque<TaskId>>,
    slots: RefCell<Vec<Slot>>,
    procs: RefCell<Vec<Proc>>,
}

impl Exec {
    /// Now.
    pub fn now(&self) -> Time {
        self.now.get()
    }
    /// How many times a task was polled.
    pub fn polls(&self) -> u64 {
        self.polls.get()
    }
    /// A digest of which task was polled when, and of what was [noted](Self::note).
    pub fn digest(&self) -> u64 {
        self.digest.get()
    }
    /// Takes something into the digest.
    pub fn note(&self, what: u64) {
        let mixed = (self.digest.get() ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.digest.set(mixed ^ (mixed >> 29));
    }
    /// A new process, not started.
    pub fn new_proc(&self) -> ProcId {
        let mut procs = self.procs.borrow_mut();
        procs.push(Proc::default());
        procs.len() - 1
    }
    /// Starts a process that is not alive.
    pub fn start(&self, proc: ProcId) {
        let mut procs = self.procs.borrow_mut();
        let p = &mut procs[proc];
        p.alive = true;
        p.stopped = false;
        p.life += 1;
    }
    /// Whether the process lives, and which life that is.
    pub fn life(&self, proc: ProcId) -> Option<u64> {
        let procs = self.procs.borrow();
        procs[proc].alive.then_some(procs[proc].life)
    }
    /// Ends a process where it stands.
    pub fn kill(&self, proc: ProcId) {
        let tasks = {
            let mut procs = self.procs.borrow_mut();
            let p = &mut procs[proc];
            p.alive = false;
            p.stopped = false;
            p.stalled.clear();
            std::mem::take(&mut p.tasks)
        };
        for task in tasks {
            let taken = {
                let mut slots = self.slots.borrow_mut();
                slots[task].live = false;
                slots[task].task.take()
            };
            // Dropped without a borrow: destructors may look around.
            drop(taken);
        }
    }
    /// Stops a process, or lets it go on.
    pub fn set_stopped(&self, proc: ProcId, stopped: bool) {
        let mut procs = self.procs.borrow_mut();
        let p = &mut procs[proc];
        if p.alive {
            p.stopped = stopped;
            if !stopped {
                self.ready.borrow_mut().extend(p.stalled.drain(..));
            }
        }
    }
    /// A new task of a process; none if that is dead.
    pub fn spawn(&self, proc: ProcId, task: impl Future<Output = ()> + 'static) {
        if !self.procs.borrow()[proc].alive {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let id = slots.len();
        slots.push(Slot { proc, task: Some(Box::pin(task)), live: true });
        self.procs.borrow_mut()[proc].tasks.insert(id);
        self.ready.borrow_mut().push_back(id);
    }
    fn wake(&self, task: TaskId) {
        self.ready.borrow_mut().push_back(task);
    }
    /// Waits.
    pub fn sleep(self: &Rc<Self>, duration: Time) -> impl Future<Output = ()> + use<> {
        let exec = Rc::clone(self);
        let until = exec.now() + duration;
        let mut asked = false;
        poll_fn(move |_| {
            if exec.now() >= until {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut asked, true) {
                exec.sequence.set(exec.sequence.get() + 1);
                let entry = (until, exec.sequence.get(), exec.current.get());
                exec.timers.borrow_mut().push(Reverse(entry));
            }
            Poll::Pending
        })
    }

    /// Runs what is ready, then what is due next, until `until` or until `stop` says so. Returns false if it was stopped.
    pub fn run_until(&self, until: Time, mut stop: impl FnMut() -> bool) -> bool {
        loop {
            while let Some(task) = { self.ready.borrow_mut().pop_front() } {
                self.poll(task);
                if stop() {
                    return false;
                }
            }
            let next = self.timers.borrow_mut().pop();
            match next {
                Some(Reverse((at, _, task))) if at <= until => {
                    self.now.set(at.max(self.now()));
                    self.wake(task);
                }
                later => {
                    if let Some(entry) = later {
                        self.timers.borrow_mut().push(entry);
                    }
                    self.now.set(until);
                    return true;
                }
            }
        }
    }

    fn poll(&self, id: TaskId) {
        let (proc, mut task) = {
            let mut slots = self.slots.borrow_mut();
            let slot = &mut slots[id];
            if !slot.live {
                return;
            }
            let mut procs = self.procs.borrow_mut();
            let p = &mut procs[slot.proc];
            if p.stopped {
                p.stalled.push(id);
                return;
            }
            let Some(task) = slot.task.take() else { return };
            (slot.proc, task)
        };
        self.polls.set(self.polls.get() + 1);
        self.note(self.now().rotate_left(20) ^ id as u64);
        self.current.set(id);
        let done = task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut slots = self.slots.borrow_mut();
        if done {
            slots[id].live = false;
            self.procs.borrow_mut()[proc].tasks.remove(&id);
        } else if slots[id].live {
            slots[id].task = Some(task);
            return;
        }
        drop(slots);
        drop(task);
    }

    /// Drops every task: futures hold the world that holds the executor.
    pub fn clear(&self) {
        let procs = self.procs.borrow().len();
        for proc in 0..procs {
            self.kill(proc);
        }
    }
}

/// A bell. A ring is heard by everybody who waits, and by whoever waits next if nobody does.
#[derive(Clone)]
pub struct Bell(Rc<BellInner>);

struct BellInner {
    exec: Rc<Exec>,
    rung: Cell<bool>,
    waiting: RefCell<Vec<TaskId>>,
}

impl Bell {
    /// A silent bell.
    pub fn new(exec: &Rc<Exec>) -> Self {
        Self(Rc::new(BellInner {
            exec: Rc::clone(exec),
            rung: Cell::new(false),
            waiting: RefCell::default(),
        }))
    }
    /// Rings.
    pub fn ring(&self) {
        self.0.rung.set(true);
        for task in self.0.waiting.borrow_mut().drain(..) {
            self.0.exec.wake(task);
        }
    }
    /// Waits for a ring, and silences it.
    pub fn heard(&self) -> impl Future<Output = ()> + use<> {
        let inner = Rc::clone(&self.0);
        poll_fn(move |_| {
            if inner.rung.replace(false) {
                return Poll::Ready(());
            }
            let current = inner.exec.current.get();
            let mut waiting = inner.waiting.borrow_mut();
            if !waiting.contains(&current) {
                waiting.push(current);
            }
            Poll::Pending
        })
    }
    /// Waits until `ready` gives something; asks again at each ring. For several who wait for the same.
    pub fn until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
        let inner = Rc::clone(&self.0);
        poll_fn(move |_| {
            if let Some(value) = ready() {
                return Poll::Ready(value);
            }
            let current = inner.exec.current.get();
            let mut waiting = inner.waiting.borrow_mut();
            if !waiting.contains(&current) {
                waiting.push(current);
            }
            Poll::Pending
        })
    }
}

/// Which of two came first.
pub enum Either<A, B> {
    /// The first.
    Left(A),
    /// The second.
    Right(B),
}

/// Whichever comes first; the first one if both do. The other is dropped.
pub async fn race<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> Either<A, B> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(move |cx| {
        if let Poll::Ready(value) = a.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(value));
        }
        b.as_mut().poll(cx).map(Either::Right)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_virtual_and_the_dead_do_nothing() {
        let exec = Rc::new(Exec::default());
        let log = Rc::new(RefCell::new(Vec::new()));
        let procs = [exec.new_proc(), exec.new_proc(), exec.new_proc()];
        for proc in procs {
            exec.start(proc);
            let (e, log) = (Rc::clone(&exec), Rc::clone(&log));
            exec.spawn(proc, async move {
                for _ in 0..3 {
                    e.sleep(S).await;
                    log.borrow_mut().push((e.now() / S, proc));
                }
            });
        }
        exec.run_until(S + 1, || false);
        exec.kill(procs[1]);
        exec.set_stopped(procs[2], true);
        exec.run_until(10 * S, || false);
        exec.set_stopped(procs[2], false);
        exec.run_until(20 * S, || false);
        let of = |proc| log.borrow().iter().filter(|l| l.1 == proc).map(|l| l.0).collect::<Vec<_>>();
        assert_eq!((of(0), of(1), of(2)), (vec![1, 2, 3], vec![1], vec![1, 10, 11]));
    }

    #[test]
    fn a_ring_is_not_lost() {
        let exec = Rc::new(Exec::default());
        let proc = exec.new_proc();
        exec.start(proc);
        let bell = Bell::new(&exec);
        bell.ring();
        let heard = Rc::new(Cell::new(0));
        let (b, h, e) = (bell.clone(), Rc::clone(&heard), Rc::clone(&exec));
        exec.spawn(proc, async move {
            b.heard().await;
            h.set(1);
            if let Either::Left(()) = race(b.heard(), e.sleep(S)).await {
                h.set(2);
            }
        });
        exec.run_until(S / 2, || false);
        assert_eq!(heard.get(), 1);
        bell.ring();
        exec.run_until(S / 2 + 1, || false);
        assert_eq!(heard.get(), 2);
    }
}
