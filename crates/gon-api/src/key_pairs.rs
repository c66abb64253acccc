//! Key pairs.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::list_query;

/// A key pair to be: generated (ed25519), or imported when its public half is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKeyPair {
    /// Its name, unique in the account.
    pub name: String,
    /// An OpenSSH public key (`ssh-ed25519 …` or `ssh-rsa …`) to import.
    pub public_key: Option<String>,
}

/// A key pair.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct KeyPair {
    /// `key-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// `ed25519` or `rsa`.
    pub key_type: String,
    /// `SHA256:…` of the public half, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The public half, a line of `authorized_keys`.
    pub public_key: String,
    /// The private half in OpenSSH's format: only in the answer that made it, only once, and kept by nobody but you.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

list_query! {
    /// Which key pairs to list.
    ListKeyPairs {
        /// The one of exactly this name.
        name,
    }
}
