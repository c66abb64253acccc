//! Passwords: Argon2id, 19 MiB, two passes (OWASP's first choice), at most two at once: each takes a core for tens of
//! milliseconds, and a flood of logins must not become an outage (rule R20).

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::rand::SecureRandom;

/// Why a password could not be hashed.
#[derive(Debug, thiserror::Error)]
#[error("the password could not be hashed")]
pub struct HashError;

fn argon2() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|_| HashError)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash of a password, a PHC string. Takes a core for tens of milliseconds.
pub fn hash(password: &str) -> Result<String, HashError> {
    let mut salt = [0; 16];
    aws_lc_rs::rand::SystemRandom::new().fill(&mut salt).map_err(|_| HashError)?;
    let hash: PasswordHash =
        argon2()?.hash_password_with_salt(password.as_bytes(), &salt).map_err(|_| HashError)?;
    Ok(hash.to_string())
}

/// Whether the password is the one that was hashed. Takes a core for tens of milliseconds, whatever the answer.
#[must_use]
pub fn verify(password: &str, hash: &str) -> bool {
    let (Ok(argon2), Ok(hash)) = (argon2(), PasswordHash::new(hash)) else { return false };
    argon2.verify_password(password.as_bytes(), &hash).is_ok()
}

/// A hash of nothing anybody knows: checked against for users who do not exist, so that they cost the same time.
pub const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$Z29uLW5vYm9keS1zYWx0$q1qVIOGh1v2a3tqVq0Yxh1cQyN2d0Pqf2cX9P0m1Wfk";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_verify_and_others_do_not() {
        let hashed = hash("correct horse").unwrap();
        assert!(hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && hashed.len() <= 255);
        assert!(verify("correct horse", &hashed));
        assert!(!verify("correct hors", &hashed));
        assert!(!verify("", &hashed));
        assert!(!verify("x", "nonsense"));
        assert_ne!(hash("correct horse").unwrap(), hashed);
    }

    #[test]
    fn nobody_costs_the_same_and_has_no_password() {
        // It must be a hash that parses, or unknown users would be answered at once.
        assert!(PasswordHash::new(NOBODY).is_ok());
        assert!(!verify("", NOBODY));
    }
}
