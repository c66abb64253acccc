//! Signing in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who signs in.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Name of the user.
    pub username: String,
    /// Its password.
    pub password: String,
}

/// A refresh token, to be exchanged or given up.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// The token.
    pub refresh_token: String,
}

/// Tokens.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
pub struct TokenResponse {
    /// Send it as `Authorization: Bearer …`.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds for which the access token is good.
    pub expires_in: u64,
    /// Good for one exchange; the answer brings another.
    pub refresh_token: String,
}

/// Who is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Me {
    /// The user.
    pub user: MeUser,
    /// The account it acts for.
    pub account: MeAccount,
}

/// The user who is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct MeUser {
    /// `user-…`.
    pub id: String,
    /// Its name.
    pub username: String,
    /// `admin` or `member`.
    pub role: String,
}

/// The account of the user who is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct MeAccount {
    /// `acct-…`.
    pub id: String,
    /// Its name.
    pub name: String,
}

macro_rules! secret_debug {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
secret_debug!(LoginRequest, RefreshRequest, TokenResponse);
