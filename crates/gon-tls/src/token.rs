//! Join tokens: what a new server is told by hand, and how it finds the right server with it.
//!
//! A token reads `gonjoin1.` and the base64url of `{"server":…,"ca_sha256":…,"secret":…}`. It holds a secret: whoever
//! has it can add a server to the site, once, until it expires.

use std::fmt;
use std::io;
use std::str::FromStr;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gon_types::Role;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use crate::config::{client_config, connect};
use crate::verify::{ServerVerifier, Trust};
use crate::{TlsError, provider};

const PREFIX: &str = "gonjoin1.";
/// Longer is no token of ours.
const LIMIT: usize = 2048;

/// A join token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// The instance manager that admits, `HOST:PORT`.
    pub server: String,
    /// SHA-256 of the authority's certificate, hexadecimal.
    pub ca_sha256: String,
    /// What only who was given the token knows.
    pub secret: String,
}

/// Without the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("server", &self.server)
            .field("ca_sha256", &self.ca_sha256)
            .finish_non_exhaustive()
    }
}

/// Why a text is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token: it begins with 'gonjoin1.' and is copied whole")]
pub struct TokenError;

impl JoinToken {
    /// The token as it is handed over.
    #[must_use]
    pub fn to_text(&self) -> String {
        let json = serde_json::json!({
            "server": self.server, "ca_sha256": self.ca_sha256, "secret": self.secret
        });
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json.to_string()))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).filter(|_| text.len() <= LIMIT).ok_or(TokenError)?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError)?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| TokenError)?;
        let is_hash = token.ca_sha256.len() == 64
            && token.ca_sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if is_hash && !token.secret.is_empty() && !token.server.is_empty() {
            Ok(token)
        } else {
            Err(TokenError)
        }
    }
}

/// A new secret of 256 bits, base64url.
pub fn random_secret() -> Result<String, TlsError> {
    Ok(URL_SAFE_NO_PAD.encode(crate::authority::random::<32>()?))
}

/// SHA-256: what is kept of a secret.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Speaks TLS over `stream` to a server of the role `expected` whose authority has the fingerprint `ca_sha256`, showing
/// nothing of our own: for who has no certificate yet.
pub async fn connect_pinned<S>(
    stream: S,
    ca_sha256: &str,
    expected: Role,
    host: &str,
) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let verifier =
        ServerVerifier { trust: Trust::Pinned(ca_sha256.to_owned()), expected, provider: provider() };
    let config =
        client_config(verifier, |builder| builder.with_no_client_auth()).map_err(io::Error::other)?;
    connect(config, stream, host).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written_and_nothing_else_is() {
        let token = JoinToken {
            server: "10.0.0.1:8082".to_owned(),
            ca_sha256: "ab".repeat(32),
            secret: random_secret().unwrap(),
        };
        let text = token.to_text();
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!("  {text}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        let of = |json: &str| format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json));
        for bad in [
            String::new(),
            "gonjoin1.".to_owned(),
            text[1..].to_owned(),
            text[..text.len() - 3].to_owned(),
            text.replace("gonjoin1", "gonjoin2"),
            of("{}"),
            of(r#"{"server":"a:1","ca_sha256":"ab","secret":"x"}"#),
            of(&format!(r#"{{"server":"a:1","ca_sha256":"{}","secret":"x","more":1}}"#, "ab".repeat(32))),
            of(&format!(r#"{{"server":"a:1","ca_sha256":"{}","secret":""}}"#, "ab".repeat(32))),
            format!("{PREFIX}{}", "A".repeat(3000)),
        ] {
            assert_eq!(bad.parse::<JoinToken>(), Err(TokenError), "{bad}");
        }
    }
}
