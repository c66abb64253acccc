//! Who is believed: peers with a certificate of one of our authorities that names one holder, in a role we expect.

use std::sync::Arc;

use gon_types::Role;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use crate::{CertificateFacts, fingerprint};

/// What is said to a peer whose certificate is ours and still not good here.
const REFUSED: Error = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

/// Which authorities a client believes.
#[derive(Debug)]
pub(crate) enum Trust {
    /// These.
    Roots(Arc<RootCertStore>),
    /// The one of this fingerprint, which the server has to show.
    Pinned(String),
}

/// A client's look at a server: one of our authorities and an expected role. The host name is not looked at: addresses
/// change, and whoever has the role is as good under any of them.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) trust: Trust,
    pub(crate) expected: Role,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = match &self.trust {
            Trust::Roots(roots) => Arc::clone(roots),
            Trust::Pinned(sha256) => {
                let pinned = intermediates.iter().find(|shown| fingerprint(shown) == *sha256);
                let mut roots = RootCertStore::empty();
                let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
                roots.add(pinned.ok_or(unknown)?.clone().into_owned())?;
                Arc::new(roots)
            }
        };
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            // An authority signs directly: there is nothing between it and the certificate.
            &[],
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        match CertificateFacts::read(end_entity) {
            Ok(facts) if facts.identity.role() == self.expected => Ok(ServerCertVerified::assertion()),
            _ => Err(REFUSED),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A server's look at a client: none, or a certificate of one of our authorities that names one holder. What that
/// holder may do is the routes' business.
#[derive(Debug)]
pub(crate) struct ClientVerifier(pub(crate) Arc<dyn ClientCertVerifier>);

impl ClientVerifier {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, crate::TlsError> {
        let inner = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self(inner))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.verify_client_cert(end_entity, &[], now)?;
        match CertificateFacts::read(end_entity) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(_) => Err(REFUSED),
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
