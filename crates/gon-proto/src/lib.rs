//! The contract between controllers and agents: the documents a node pulls, the reports it sends back, and the
//! doorbells that say "look again".
//!
//! Assumes nothing about transport. Promises no behaviour, only shapes: a document is always a whole replacement
//! (never a delta), a report always says which document it speaks of, a doorbell carries no data. Unknown fields are
//! refused, so a misspelt or newer field cannot be dropped silently; `FORMAT` moves when a shape changes.

pub mod compute;
pub mod doorbell;
pub mod grant;
pub mod join;
pub mod network;
pub mod paths;
pub mod report;
pub mod trace;

pub use compute::{DiskSpec, ImageSpec, InstanceSpec, NicSpec, NodeCompute, Origin, PowerSpec};
pub use doorbell::Doorbell;
pub use grant::{GrantAnswer, GrantRequest};
pub use join::{AuthoritiesAnswer, JoinAnswer, JoinRequest, RenewAnswer, RenewRequest, SiteAnswer};
pub use network::{
    AclAction, AclEntrySpec, AclSpec, AddressSpec, DhcpSpec, Direction, GatewayTarget, GroupSpec,
    MetadataSpec, NodeNetwork, Peer, PeerSpec, PortSpec, RouteSpec, RouteTarget, RuleSpec, SubnetSpec,
    TUNNEL_OVERHEAD, VpcSpec,
};
pub use report::{
    ComputeReport, ImageKind, ImageReport, InstanceReport, NetworkReport, NodeAnswer, NodeReport,
    ObservedInstance, OverlayReport, PortReport, PortStatus, VpcReport,
};

/// Version of the shapes in this crate. An agent may be one behind the controllers, never ahead of them: a site is brought
/// to a new version controllers first, and back agents first. 2 added what several nodes need: peers, labels, epochs; 3 added
/// network ACLs, and instances that run by grant.
pub const FORMAT: u32 = 3;
/// The oldest that is understood.
pub const OLDEST_FORMAT: u32 = FORMAT - 1;

/// Whether what says that it has this format can be read here.
#[must_use]
pub const fn is_spoken(format: u32) -> bool {
    OLDEST_FORMAT <= format && format <= FORMAT
}
