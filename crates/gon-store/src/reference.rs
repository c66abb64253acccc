//! How a statement finds a row by the id a client wrote.
//!
//! In SQL it is always `t.id = coalesce($n, (select id from t where short_id = $m))`: one look-up in a unique index for
//! the shown form, none for the whole one.

use gon_types::id::IdRef;
use gon_types::{Id, Resource};
use uuid::Uuid;

/// An id as a client wrote it, whole or shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// The stored id.
    pub whole: Option<Uuid>,
    /// The 17 hex digits.
    pub short: Option<String>,
}

impl<R: Resource> From<IdRef<R>> for Ref {
    fn from(id: IdRef<R>) -> Self {
        match id {
            IdRef::Whole(id) => Self { whole: Some(id.uuid()), short: None },
            IdRef::Short(short) => Self { whole: None, short: Some(short) },
        }
    }
}
impl<R: Resource> From<Id<R>> for Ref {
    fn from(id: Id<R>) -> Self {
        id.uuid().into()
    }
}
impl From<Uuid> for Ref {
    fn from(id: Uuid) -> Self {
        Self { whole: Some(id), short: None }
    }
}
impl<R: Resource> From<&IdRef<R>> for Ref {
    fn from(id: &IdRef<R>) -> Self {
        match id {
            IdRef::Whole(id) => Self { whole: Some(id.uuid()), short: None },
            IdRef::Short(short) => Self { whole: None, short: Some(short.clone()) },
        }
    }
}
