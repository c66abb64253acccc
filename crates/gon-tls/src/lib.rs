//! The door to the wire: the site's certificate authority, TLS between its services, and who speaks at the other end.
//!
//! ```text
//!  Authority ── signs a request for an Identity the authority chose ──▶ DATA_DIR/tls/{ca.crt, ROLE.crt, ROLE.key}
//!                                                                              │ TlsDir
//!            serve(listener, Tls, router) ──▶ request + Extension(Peer)  ◀── Tls ──▶ Tls::connect(stream, role)
//! ```
//!
//! Assumes clocks that agree to within minutes, and that who can read a key is who it names. Promises:
//!
//! - TLS 1.3 only, one crypto provider, no session resumption: every connection proves its certificate anew;
//! - a peer is the one `gon://ROLE/NAME` in the certificate that our authority signed for it, and nothing else;
//! - certificates and authorities are replaced while connections go on; a connection whose certificate has expired or
//!   whose authority is no longer trusted ends after the answer it is giving.
//!
//! Revocation is not known here: who serves asks the database at every request.

mod authority;
mod certificate;
mod config;
mod dir;
mod roll;
mod serve;
mod token;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

pub use authority::{Authority, Issued, LIFETIME, Revoked, SigningRequest};
pub use certificate::{CertificateFacts, bundle_sha256, fingerprint};
pub use config::{Current, Tls};
pub use dir::{TlsDir, check_pair};
pub use gon_types::{Identity, IdentityError, Role};
pub use roll::RollError;
pub use serve::{Limits, Peer, serve};
pub use token::{JoinToken, TokenError, connect_pinned, random_secret, sha256};

/// The only crypto provider of the process.
#[must_use]
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    // Others (the clients of the bus and of etcd) ask for the default: it has to be this one. Who comes second finds
    // it installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    rustls::crypto::CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Why there is no certificate, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The disk.
    #[error("{path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{0}")]
    Malformed(String),
    /// The key is not the certificate's.
    #[error("the key of '{0}' does not belong to its certificate")]
    Mismatch(String),
    /// The certificate does not say who its holder is, or says it in more than one way.
    #[error("the certificate does not name one holder")]
    Identity(#[from] IdentityError),
    /// The certificate names somebody else.
    #[error("the certificate is for {found}, not for {expected}")]
    OtherIdentity {
        /// Whom it names.
        found: Identity,
        /// Whom it should name.
        expected: String,
    },
    /// The request is not one we sign.
    #[error("the certificate request is refused: {0}")]
    Request(String),
    /// Making a certificate failed.
    #[error("the certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// TLS does not take it.
    #[error("TLS refuses the certificates")]
    Tls(#[from] rustls::Error),
}
