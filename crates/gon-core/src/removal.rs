//! Whether a document may remove most of a node (rule R11), and what a node was known to have.
//!
//! A node refuses a document that would remove much of it, unless the document says that this is meant. It is meant when
//! of everything the node was known to have, either it is in the document or PostgreSQL has a row that says that it left. A
//! read that brought too little never gives this permission.

use std::collections::BTreeSet;

/// So many may go unasked: the agents' brake does not count them.
pub const FREE: usize = 3;

/// What a node had: by the last document it was told and by its last report; `None` while nothing is known of it.
#[must_use]
pub fn known<T: Ord>(
    told: Option<impl IntoIterator<Item = T>>,
    said: Option<impl IntoIterator<Item = T>>,
) -> Option<BTreeSet<T>> {
    if told.is_none() && said.is_none() {
        return None;
    }
    let told = told.into_iter().flatten();
    Some(told.chain(said.into_iter().flatten()).collect())
}

/// Whether a document may say that removing is meant: `going` are on their way out, and for everything that is missing
/// there is a row that says why (`is_explained`).
#[must_use]
pub const fn is_meant(going: usize, is_explained: bool) -> bool {
    is_explained && going > FREE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_spoke_of_is_not_known() {
        let none: Option<[u8; 0]> = None;
        assert_eq!(known(none, none), None);
        assert_eq!(known(Some([]), none), Some(BTreeSet::new()));
        assert_eq!(known(Some([1, 2]), Some([2, 3])), Some(BTreeSet::from([1, 2, 3])));
    }

    #[test]
    fn few_need_no_permission_and_what_is_not_explained_gets_none() {
        for going in 0..100 {
            assert!(!is_meant(going, false));
            assert_eq!(is_meant(going, true), going > 3);
        }
    }
}
