//! Cookies: the 64 bits that every flow carries and that say where it comes from.
//!
//! ```text
//! 63    56 55    48 47                                              0
//! ┌───────┬────────┬─────────────────────────────────────────────────┐
//! │ 'G'   │ stage  │ origin: last 12 hex digits of the resource's id │
//! └───────┴────────┴─────────────────────────────────────────────────┘
//! ```
//!
//! The origin is the tail of the id that people see (`eni-…`, `sgr-…`, 17 digits), so a line of `ovs-ofctl dump-flows`
//! can be searched for in any list of resources. Flows that belong to no resource have origin 0. The first byte tells our
//! flows from anybody else's: the agent deletes and repairs by `cookie=0x47…/0xff…`, and finds strangers by its absence.

use std::fmt;

use gon_types::{Id, Resource};
use uuid::Uuid;

use crate::pipeline::Stage;

/// First byte of every cookie of ours: `G`.
pub const MARK: u8 = b'G';

/// Which bits of a cookie are [`MARK`].
pub const MARK_MASK: u64 = 0xff << 56;

const ORIGIN_MASK: u64 = (1 << 48) - 1;

/// Where a flow comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(u64);

impl Cookie {
    /// A flow of a stage that is there whatever the document says.
    #[must_use]
    pub const fn fixed(stage: Stage) -> Self {
        Self((MARK as u64) << 56 | (stage.table() as u64) << 48)
    }
    /// A flow of a stage that stands for a resource.
    #[must_use]
    pub fn of<R: Resource>(stage: Stage, id: Id<R>) -> Self {
        Self(Self::fixed(stage).0 | origin(id.uuid()))
    }
    /// A cookie as the switch reports it; `None` if it is not one of ours.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if (bits >> 56) as u8 == MARK { Some(Self(bits)) } else { None }
    }
    /// A cookie as the switch reports it, ours or not.
    #[must_use]
    pub const fn foreign(bits: u64) -> Self {
        Self(bits)
    }
    /// As the switch stores it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }
    /// The stage that made the flow.
    #[must_use]
    pub fn stage(self) -> Option<Stage> {
        Self::from_bits(self.0).and_then(|c| Stage::of_table((c.0 >> 48) as u8))
    }
    /// The last 12 hex digits of the resource's id; `None` for a flow of no resource.
    #[must_use]
    pub fn origin(self) -> Option<String> {
        let origin = self.0 & ORIGIN_MASK;
        (origin != 0).then(|| format!("{origin:012x}"))
    }
    /// Whether the flow may come from this resource.
    #[must_use]
    pub fn is_of<R: Resource>(self, id: Id<R>) -> bool {
        self.0 & ORIGIN_MASK == origin(id.uuid())
    }
}

fn origin(id: Uuid) -> u64 {
    id.as_u128() as u64 & ORIGIN_MASK
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stage(), self.origin()) {
            (Some(stage), Some(origin)) => write!(f, "{}:…{origin}", stage.name()),
            (Some(stage), None) => f.write_str(stage.name()),
            (None, _) => write!(f, "foreign:{:#x}", self.0),
        }
    }
}
impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use gon_types::id::NetworkInterfaceId;

    use super::*;

    #[test]
    fn a_cookie_reads_back() {
        let id = NetworkInterfaceId::from_uuid(Uuid::from_u128(0x0193_5a6c_8a1b_7c3d_9e0f_1122_3344_5566));
        let cookie = Cookie::of(Stage::Admit, id);
        let back = Cookie::from_bits(cookie.to_bits()).unwrap();
        assert_eq!(back.stage(), Some(Stage::Admit));
        assert!(back.is_of(id));
        assert!(id.to_string().ends_with(&back.origin().unwrap()));
        assert_eq!(cookie.to_string(), "admit:…112233445566");
    }

    #[test]
    fn fixed_and_foreign_cookies_are_told_apart() {
        assert_eq!(Cookie::fixed(Stage::Route).origin(), None);
        assert_eq!(Cookie::from_bits(0), None);
        assert_eq!(Cookie::foreign(0x1234).stage(), None);
    }
}
