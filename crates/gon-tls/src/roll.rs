//! Replacing the authority without an interruption, in three steps with time between them.
//!
//! ```text
//!   prepare   ca.crt = [old, new]   the old one signs; everybody learns to believe both
//!   promote   ca.crt = [new, old]   the new one signs; everybody gets a certificate of it
//!   retire    ca.crt = [new]        certificates of the old one are no longer believed
//! ```
//!
//! Who serves takes the next step only when everybody has taken the last one; the database knows whose certificates are
//! of which authority.

use std::io;

use crate::{Authority, TlsDir, TlsError, certificate, fingerprint};

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RollError {
    /// It is not the next one.
    #[error("{0}")]
    Order(&'static str),
    /// The files.
    #[error(transparent)]
    Files(#[from] TlsError),
}

impl TlsDir {
    /// First step: makes the next authority, which everybody is to believe beside the present one. Returns its
    /// fingerprint. Repeated, it changes nothing.
    pub fn prepare_next_authority(&self) -> Result<String, RollError> {
        let bundle = self.read(&self.ca_certificates())?;
        let present = self.authority()?;
        if let Ok(key) = self.read(&self.next_ca_key()) {
            match Authority::from_pem(&bundle, &key) {
                Ok(next) => return Ok(next.sha256()),
                // Its key was written and its certificate was not: nobody has seen it.
                Err(TlsError::Mismatch(_)) => {}
                Err(error) => return Err(error.into()),
            }
        } else if certificate::certificates(&bundle)?.len() > 1 {
            return Err(RollError::Order("the authority before the present one has not been retired yet"));
        }
        let next = Authority::create()?;
        self.write(&self.next_ca_key(), &next.key_pem(), 0o600)?;
        self.trust(&(present.certificate_pem() + &next.certificate_pem()))?;
        Ok(next.sha256())
    }

    /// Second step: from now on the next authority signs. Returns its fingerprint.
    pub fn promote_next_authority(&self) -> Result<String, RollError> {
        let bundle = self.read(&self.ca_certificates())?;
        let key = match self.read(&self.next_ca_key()) {
            Ok(key) => key,
            Err(TlsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(RollError::Order("there is no next authority: prepare one first"));
            }
            Err(error) => return Err(error.into()),
        };
        let next = Authority::from_pem(&bundle, &key)?;
        let others: String = certificate::certificates(&bundle)?
            .iter()
            .filter(|shown| fingerprint(shown) != next.sha256())
            .map(|shown| certificate::to_pem(shown))
            .collect();
        // The order of the bundle follows the key: until both are there, the old one signs, and both are believed.
        self.trust(&(next.certificate_pem() + &others))?;
        std::fs::rename(self.next_ca_key(), self.ca_key())
            .map_err(|source| TlsError::Io { path: self.ca_key(), source })?;
        Ok(next.sha256())
    }

    /// Third step: only the authority that signs is believed.
    pub fn retire_old_authority(&self) -> Result<(), RollError> {
        if self.next_ca_key().exists() {
            return Err(RollError::Order("the next authority does not sign yet: promote it first"));
        }
        Ok(self.trust(&self.authority()?.certificate_pem())?)
    }
}
