//! A server of the control plane: its processes and what they hold in memory. And the processes of the world by name.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use gon_control::documents::NodeDocument;
use gon_control::network::memory::NodeMemory;
use gon_core::document::number;
use gon_core::placement::Waiting;
use gon_core::removal;
use gon_proto::ObservedInstance;
use gon_proto::{InstanceReport, NetworkReport, NodeCompute};
use gon_types::DocumentVersion;

use crate::exec::{Bell, Either, Exec, ProcId, Time, race};
use crate::machine::NetworkDocument;
use crate::net::{CallError, HostId};
use crate::world::{Ctx, Program, World};

/// A server.
pub struct Server {
    /// Its host.
    pub host: HostId,
    /// Its API server.
    pub api: ProcId,
    /// Its instance manager.
    pub compute: ProcId,
    /// Its network controller.
    pub network: ProcId,
    /// The instance manager's memory.
    pub manager: RefCell<Manager>,
    /// The network controller's memory.
    pub controller: RefCell<Controller>,
    /// How far its wall clock is off, seconds.
    pub wall_clock_off: Cell<i64>,
    /// Rung by its processes after a commit: its relays look.
    pub nudge: Bell,
}

/// What an instance manager holds in memory.
pub struct Manager {
    /// Documents by node.
    pub documents: Documents<NodeCompute>,
    /// Since when it leads, if it believes so.
    pub leads: Option<u64>,
    /// The last report of each node that was taken in full, and when.
    pub reports: BTreeMap<usize, (Vec<InstanceReport>, Time)>,
    /// How long instances have waited for a node, by this process' own clock, which only goes forward.
    pub waiting: Rc<RefCell<Waiting>>,
    /// What it has seen of the nodes' grants.
    pub eyes: crate::recovery::Eyes,
}

/// What a network controller holds in memory.
pub struct Controller {
    /// Documents by node.
    pub documents: Documents<NetworkDocument>,
    /// Since when it leads, if it believes so.
    pub leads: Option<u64>,
    /// What it remembers of the nodes.
    pub memory: BTreeMap<usize, NodeMemory>,
    /// The last report of each node that was taken in full, and when.
    pub reports: BTreeMap<usize, (NetworkReport, Time)>,
}

/// The latest document of every node, unstamped and stamped.
pub struct Documents<D> {
    held: BTreeMap<usize, Held<D>>,
    /// Rung when there is a new one, or polls shall end.
    pub bell: Bell,
    /// Held from before rows are read until their document is published.
    pub turn: Turn,
}

struct Held<D> {
    version: DocumentVersion,
    content: D,
    mass_change_ok: bool,
    stamped: Rc<D>,
}

/// One at a time.
#[derive(Clone)]
pub struct Turn(Rc<Cell<bool>>, Bell);

impl Turn {
    /// Waits for it; it is given back when the result is dropped.
    pub async fn take(&self) -> Taken {
        let taken = Rc::clone(&self.0);
        self.1.until(move || (!taken.replace(true)).then_some(())).await;
        Taken(self.clone())
    }
}

/// A turn.
pub struct Taken(Turn);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.0.set(false);
        self.0.1.ring();
    }
}

impl<D: NodeDocument> Documents<D> {
    /// None yet.
    pub fn new(exec: &Rc<Exec>) -> Self {
        let turn = Turn(Rc::default(), Bell::new(exec));
        Self { held: BTreeMap::new(), bell: Bell::new(exec), turn }
    }
    /// Publishes what a node should be, if that is new.
    pub fn publish(
        &mut self,
        epoch: u64,
        node: usize,
        content: D,
        mass_change_ok: bool,
    ) -> (DocumentVersion, bool) {
        let held = self.held.get(&node).map(|held| (held.version, &held.content, held.mass_change_ok));
        match number(held, epoch, &content, mass_change_ok) {
            Err(version) => (version, false),
            Ok(version) => {
                let mut stamped = content.clone();
                stamped.stamp(version, mass_change_ok);
                self.held.insert(node, Held { version, content, mass_change_ok, stamped: Rc::new(stamped) });
                self.bell.ring();
                (version, true)
            }
        }
    }
    /// Forgets all, and ends every poll.
    pub fn clear(&mut self) {
        self.held.clear();
        self.bell.ring();
    }
    /// The version in force for a node.
    pub fn version(&self, node: usize) -> Option<DocumentVersion> {
        self.held.get(&node).map(|held| held.version)
    }
    /// What is newer than `after`.
    pub fn newer(&self, node: usize, after: DocumentVersion) -> Option<Rc<D>> {
        self.held.get(&node).filter(|held| held.version > after).map(|held| Rc::clone(&held.stamped))
    }
}

impl Manager {
    /// Instances that the node had, by our last document and by its last report; `None` while nothing is known of it.
    pub fn had(&self, node: usize) -> Option<BTreeSet<uuid::Uuid>> {
        let told = self.documents.newer(node, DocumentVersion::default());
        let said = self.reports.get(&node);
        let there = |i: &&InstanceReport| i.observed != ObservedInstance::Gone;
        let said = said.map(|(reports, _)| reports.iter().filter(there).map(|i| i.id.uuid()));
        let told = told.as_ref().map(|document| document.instances.iter().map(|i| i.id.uuid()));
        removal::known(told.map(Vec::from_iter), said.map(Vec::from_iter))
    }
}

/// A controller that does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotLeading;

/// The way of an agent to the controllers: one after the other, until one answers that leads.
pub struct Link {
    at: Cell<usize>,
}

impl Link {
    /// Begins somewhere.
    pub fn new(at: usize) -> Self {
        Self { at: Cell::new(at) }
    }
    /// Calls a controller; another one next time, if this one does not answer or does not lead.
    pub async fn call<T, F, H>(
        &self,
        from: &Ctx,
        to: &[Ctx],
        deadline: Time,
        handler: H,
    ) -> Result<T, CallError>
    where
        T: 'static,
        F: Future<Output = Result<T, NotLeading>> + 'static,
        H: FnOnce(Ctx, usize) -> F + 'static,
    {
        let index = self.at.get() % to.len();
        let server = to[index].clone();
        let answer = from.call(&server.clone(), deadline, move || handler(server, index)).await;
        match answer {
            Ok(Ok(value)) => Ok(value),
            other => {
                self.at.set(self.at.get() + 1);
                Err(other.err().unwrap_or(CallError::Refused))
            }
        }
    }
}

/// Waits for a ring of `bell` until `value` gives something, at most `wait`.
pub async fn hold<T>(ctx: &Ctx, bell: &Bell, wait: Time, value: impl FnMut() -> Option<T>) -> Option<T> {
    match race(bell.until(value), ctx.sleep(wait)).await {
        Either::Left(value) => Some(value),
        Either::Right(()) => None,
    }
}

impl World {
    fn process(self: &Rc<Self>, proc: ProcId, host: HostId, program: Program, name: String) -> Ctx {
        Ctx { w: Rc::clone(self), proc, host, program, name: name.into() }
    }
    /// The API server of a server.
    pub fn api(self: &Rc<Self>, server: usize) -> Ctx {
        let s = &self.servers[server];
        self.process(s.api, s.host, Program::Api(server), format!("api{server}"))
    }
    /// The instance manager of a server.
    pub fn compute(self: &Rc<Self>, server: usize) -> Ctx {
        let s = &self.servers[server];
        self.process(s.compute, s.host, Program::Compute(server), format!("manager{server}"))
    }
    /// The network controller of a server.
    pub fn network(self: &Rc<Self>, server: usize) -> Ctx {
        let s = &self.servers[server];
        self.process(s.network, s.host, Program::Network(server), format!("controller{server}"))
    }
    /// The instance managers.
    pub fn managers(self: &Rc<Self>) -> Vec<Ctx> {
        (0..self.servers.len()).map(|s| self.compute(s)).collect()
    }
    /// The network controllers.
    pub fn controllers(self: &Rc<Self>) -> Vec<Ctx> {
        (0..self.servers.len()).map(|s| self.network(s)).collect()
    }
    /// The hypervisor agent of a node.
    pub fn hypervisor(self: &Rc<Self>, node: usize) -> Ctx {
        let m = &self.nodes[node];
        self.process(m.hypervisor, m.host, Program::Hypervisor(node), format!("hypervisor{node}"))
    }
    /// The network agent of a node.
    pub fn wires(self: &Rc<Self>, node: usize) -> Ctx {
        let m = &self.nodes[node];
        self.process(m.wires, m.host, Program::Wires(node), format!("wires{node}"))
    }
    /// Every process of the platform.
    pub fn processes(self: &Rc<Self>) -> Vec<Ctx> {
        let servers = (0..self.servers.len()).flat_map(|s| [self.api(s), self.compute(s), self.network(s)]);
        let nodes = (0..self.nodes.len()).flat_map(|n| [self.hypervisor(n), self.wires(n)]);
        servers.chain(nodes).collect()
    }
}
