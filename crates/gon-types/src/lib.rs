//! Words: the vocabulary every other crate speaks. Ids, names, networks, ports, MACs, states.
//!
//! Assumes nothing. Promises that a value of one of these types is well-formed: parsing is the only way in
//! (parse, don't validate). No IO, no policy, and no word of a table, a queue or a flow.

pub mod crash;
pub mod id;
pub mod identity;
pub mod name;
pub mod net;
pub mod state;

pub use id::{Id, IdError, Resource};
pub use identity::{Identity, IdentityError, Role};
pub use name::{Name, NameError};
pub use net::{IcmpMatch, MacAddr, NetError, PortRange, Protocol};
pub use state::{DocumentVersion, Generation, InstanceState};
