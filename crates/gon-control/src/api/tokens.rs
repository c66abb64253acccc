//! Access tokens: JWT (RFC 7519), Ed25519, fifteen minutes, every claim required. The key is a file of its own, made at
//! the first start; another key has another `kid`, and only `kid`s we know are looked at.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Seconds for which an access token is good.
pub const LIFETIME: u64 = 15 * 60;
const ISSUER: &str = "gon";
const AUDIENCE: &str = "gon-api";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// For whom.
    pub aud: String,
    /// The user.
    pub sub: Uuid,
    /// The user's token epoch at issue; an older one than the user's is void.
    pub epoch: i64,
    /// When it was issued, seconds since 1970.
    pub iat: u64,
    /// From when it is good.
    pub nbf: u64,
    /// Until when.
    pub exp: u64,
    /// Its own id.
    pub jti: Uuid,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("the token key cannot be read or written")]
    Io(#[from] std::io::Error),
    /// What is in it.
    #[error("this is not an Ed25519 key in PKCS #8 PEM")]
    Malformed,
}

/// Makes and checks access tokens.
#[derive(Clone)]
pub struct Tokens {
    kid: String,
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
    secret: Vec<u8>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the key of `path`; makes one there (mode 0600) if there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match std::fs::read_to_string(path) {
            Ok(pem) => return Self::from_pem(&pem),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Err(_) => {}
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Malformed)?;
        let pem = to_pem(pkcs8.as_ref());
        // Whole or not at all: written beside, then linked; who comes second takes the first one's.
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&beside, path);
        std::fs::remove_file(&beside)?;
        match linked {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
            _ => Self::from_pem(&std::fs::read_to_string(path)?),
        }
    }

    /// A key that nobody else has: for tests.
    pub fn ephemeral() -> Result<Self, KeyError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Malformed)?;
        Self::from_pem(&to_pem(pkcs8.as_ref()))
    }

    fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let pkcs8 = STANDARD.decode(body).map_err(|_| KeyError::Malformed)?;
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| KeyError::Malformed)?;
        let public = pair.public_key().as_ref();
        let kid = Sha256::digest(public)[..8].iter().map(|b| format!("{b:02x}")).collect();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.validate_nbf = true;
        validation.leeway = 5;
        Ok(Self {
            kid,
            signing: EncodingKey::from_ed_der(&pkcs8),
            checking: DecodingKey::from_ed_der(public),
            validation,
            secret: pkcs8,
        })
    }

    /// What other keys are derived from; the same for every API server with this key.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// A token for the user.
    pub fn issue(&self, user: Uuid, epoch: i64) -> Result<String, jsonwebtoken::errors::Error> {
        let now = jsonwebtoken::get_current_timestamp();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            epoch,
            iat: now,
            nbf: now,
            exp: now + LIFETIME,
            jti: Uuid::now_v7(),
        };
        self.sign(&claims)
    }

    /// A token that says just that: for tests.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.signing)
    }

    /// What a token says, if it is ours and good now.
    #[must_use]
    pub fn check(&self, token: &str) -> Option<Claims> {
        if token.len() > 2048 {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.kid.as_deref() != Some(&self.kid) {
            return None;
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &self.validation).ok()?.claims;
        // Nobody issues tokens ahead of time, or longer ones.
        let now = jsonwebtoken::get_current_timestamp();
        (claims.iat <= now + 5 && claims.exp.saturating_sub(claims.iat) <= LIFETIME).then_some(claims)
    }
}

fn to_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn claims(tokens: &Tokens) -> Claims {
        tokens.check(&tokens.issue(Uuid::from_u128(7), 3).unwrap()).unwrap()
    }

    #[test]
    fn what_is_issued_is_good() {
        let tokens = Tokens::ephemeral().unwrap();
        let claims = claims(&tokens);
        assert_eq!((claims.sub, claims.epoch), (Uuid::from_u128(7), 3));
        assert_eq!(claims.exp - claims.iat, LIFETIME);
    }

    #[test]
    fn everything_else_is_not() {
        let tokens = Tokens::ephemeral().unwrap();
        let good = claims(&tokens);
        let now = good.iat;
        let mutants = [
            Claims { exp: now - 10, nbf: now - 900, iat: now - 900, ..good.clone() },
            Claims { nbf: now + 60, ..good.clone() },
            Claims { iat: now + 600, exp: now + 1200, ..good.clone() },
            Claims { exp: now + 86_400, ..good.clone() },
            Claims { iss: "other".to_owned(), ..good.clone() },
            Claims { aud: "other".to_owned(), ..good.clone() },
        ];
        for claims in mutants {
            assert_eq!(tokens.check(&tokens.sign(&claims).unwrap()), None, "{claims:?}");
        }
        // Another key, with our key's name.
        let mut other = Tokens::ephemeral().unwrap();
        other.kid = tokens.kid.clone();
        assert_eq!(tokens.check(&other.sign(&good).unwrap()), None);
        // Our key under another name, or none.
        let mut renamed = tokens.clone();
        renamed.kid = "00".to_owned();
        assert_eq!(tokens.check(&renamed.sign(&good).unwrap()), None);
        let nameless = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &good, &tokens.signing).unwrap();
        assert_eq!(tokens.check(&nameless), None);
        // No algorithm; another algorithm, keyed with our public key.
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let body = part(serde_json::to_value(&good).unwrap());
        let none = part(serde_json::json!({"alg": "none", "typ": "JWT", "kid": tokens.kid}));
        assert_eq!(tokens.check(&format!("{none}.{body}.")), None);
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(tokens.kid.clone());
        let pair = Ed25519KeyPair::from_pkcs8(tokens.secret()).unwrap();
        let hmac =
            jsonwebtoken::encode(&header, &good, &EncodingKey::from_secret(pair.public_key().as_ref()))
                .unwrap();
        assert_eq!(tokens.check(&hmac), None);
        // Claims missing, or of another type.
        for claim in ["iss", "aud", "sub", "epoch", "iat", "nbf", "exp", "jti"] {
            let mut value = serde_json::to_value(&good).unwrap();
            value.as_object_mut().unwrap().remove(claim);
            assert_eq!(tokens.check(&sign(&tokens, &value)), None, "{claim}");
        }
        for claim in ["iat", "nbf", "exp"] {
            for wrong in [
                serde_json::json!("9999999999"),
                serde_json::json!(-1),
                serde_json::json!(null),
                serde_json::json!([]),
            ] {
                let mut value = serde_json::to_value(&good).unwrap();
                value[claim] = wrong;
                assert_eq!(tokens.check(&sign(&tokens, &value)), None, "{value}");
            }
        }
        // Every character changed.
        let token = tokens.issue(good.sub, 0).unwrap();
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            if let Some(claims) = tokens.check(&changed) {
                // The last digit of a part has bits that say nothing.
                assert_eq!(Some(claims), tokens.check(&token), "{at}");
            }
        }
        for bad in ["", ".", "..", "a.b.c", &"a".repeat(4096)] {
            assert_eq!(tokens.check(bad), None);
        }
    }

    fn sign(tokens: &Tokens, claims: &serde_json::Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(tokens.kid.clone());
        jsonwebtoken::encode(&header, claims, &tokens.signing).unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_only_ours_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwt.pem");
        let first = Tokens::load_or_create(&path).unwrap();
        let again = Tokens::load_or_create(&path).unwrap();
        assert_eq!(first.kid, again.kid);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(Tokens::load_or_create(&path), Err(KeyError::Malformed)));
    }
}
