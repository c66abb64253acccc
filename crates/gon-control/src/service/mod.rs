//! What users may do: check with `gon_core`, then one transaction. Every function takes a [`Cx`], which can only be had
//! by passing the door of `authz`.

pub mod addresses;
pub mod default_vpc;
pub mod error;
pub mod images;
pub mod instances;
pub mod internet_gateways;
pub mod key_pairs;
pub mod network_acls;
pub mod network_interfaces;
pub mod nodes;
pub mod operations;
pub mod prefix_lists;
pub mod route_tables;
pub mod security_groups;
pub mod subnets;
pub mod trace;
pub mod users;
pub mod vpcs;

mod cursor;
mod cx;
mod parse;

pub use cursor::CursorKey;
pub use cx::{Cx, IdempotencyKey, Resource};
pub use error::{Kind, Refusal, Result};
pub use users::{AdminError, ensure_admin};

/// Random bytes.
fn random<const N: usize>() -> Result<[u8; N]> {
    use aws_lc_rs::rand::SecureRandom;
    let mut bytes = [0; N];
    aws_lc_rs::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Refusal::internal("no random bytes"))?;
    Ok(bytes)
}
