//! Cursors: where the next page begins, sealed so that only cursors we gave out are taken.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::error::Refusal;

const SEAL: usize = 16;

/// The key that seals cursors; the same for every API server of a site.
#[derive(Clone)]
pub struct CursorKey(hmac::Key);

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey")
    }
}

impl CursorKey {
    /// A key made from a secret that the servers share.
    #[must_use]
    pub fn derive(secret: &[u8]) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = hmac::sign(&master, b"gon list cursor v1");
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    fn seal_of(&self, list: &str, account: Uuid, last: Uuid) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(account.as_bytes());
        context.update(last.as_bytes());
        context.update(list.as_bytes());
        context.sign()
    }

    /// The cursor after `last` of this list.
    #[must_use]
    pub fn write(&self, list: &str, account: Uuid, last: Uuid) -> String {
        let mut bytes = [0; 16 + SEAL];
        bytes[..16].copy_from_slice(last.as_bytes());
        bytes[16..].copy_from_slice(&self.seal_of(list, account, last).as_ref()[..SEAL]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The id that a cursor stands for.
    pub fn read(&self, list: &str, account: Uuid, cursor: &str) -> Result<Uuid, Refusal> {
        let bad = || Refusal::of_field("InvalidPaginationToken", "cursor", "is not a cursor of this list");
        let bytes: [u8; 16 + SEAL] =
            URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|b| b.try_into().ok()).ok_or_else(bad)?;
        let (id, seal) = bytes.split_at(16);
        let last = Uuid::from_slice(id).map_err(|_| bad())?;
        let expected = self.seal_of(list, account, last);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..SEAL], seal)
            .map_err(|_| bad())?;
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_cursors_of_the_same_list_are_taken() {
        let key = CursorKey::derive(b"secret");
        let (account, id) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let cursor = key.write("vpcs", account, id);
        assert_eq!(key.read("vpcs", account, &cursor).unwrap(), id);
        assert!(key.read("instances", account, &cursor).is_err());
        assert!(key.read("vpcs", Uuid::from_u128(3), &cursor).is_err());
        assert!(CursorKey::derive(b"other").read("vpcs", account, &cursor).is_err());
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last digit has bits that are not used.
            if changed != cursor && URL_SAFE_NO_PAD.decode(&changed).is_ok() {
                assert!(key.read("vpcs", account, &changed).is_err(), "{at}");
            }
        }
        for bad in ["", "x", "AAAA", &"A".repeat(43), "=", "../.."] {
            assert!(key.read("vpcs", account, bad).is_err());
        }
    }
}
