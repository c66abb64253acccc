//! Certificates as text and as facts.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gon_types::{Identity, IdentityError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::TlsError;

/// What a certificate says. Says nothing about whether it can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its number, lower-case hexadecimal, unique in the site.
    pub serial: String,
    /// Who holds it.
    pub identity: Identity,
    /// From when it is good.
    pub not_before: OffsetDateTime,
    /// Until when.
    pub not_after: OffsetDateTime,
}

impl CertificateFacts {
    /// Reads a certificate. It has to name exactly one holder, in one URI.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let parsed = parse(certificate)?;
        let mut holders = Vec::new();
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::URI(uri) => holders.push(*uri),
                            GeneralName::DNSName(_) | GeneralName::IPAddress(_) => {}
                            _ => return Err(IdentityError::Form.into()),
                        }
                    }
                }
                ParsedExtension::ParseError { .. } => return Err(malformed("an extension cannot be read")),
                _ => {}
            }
        }
        let [holder] = holders.as_slice() else { return Err(IdentityError::Form.into()) };
        Ok(Self {
            serial: hex(parsed.raw_serial()),
            identity: holder.parse()?,
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
        })
    }

    /// When to replace it: after two thirds of its life.
    #[must_use]
    pub fn renew_at(&self) -> OffsetDateTime {
        self.not_before + (self.not_after - self.not_before) * 2 / 3
    }
}

fn malformed(what: &str) -> TlsError {
    TlsError::Malformed(what.to_owned())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(malformed("this is not a certificate")),
    }
}

/// The uncompressed public key.
pub(crate) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, TlsError> {
    Ok(parse(certificate)?.public_key().subject_public_key.data.to_vec())
}

/// Until when a certificate is good, whoever holds it.
pub(crate) fn not_after(certificate: &CertificateDer<'_>) -> Result<OffsetDateTime, TlsError> {
    Ok(parse(certificate)?.validity().not_after.to_datetime())
}

/// Whether `certificate` names `authority` as its issuer.
pub(crate) fn is_issued_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    match (parse(certificate), parse(authority)) {
        (Ok(leaf), Ok(ca)) => {
            leaf.issuer() == ca.subject() && leaf.issuer().as_raw() == ca.subject().as_raw()
        }
        _ => false,
    }
}

/// Every certificate of a PEM text; at least one.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Malformed(format!("this is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(malformed("there is no certificate in it"));
    }
    Ok(found)
}

pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let body = STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of a certificate, hexadecimal: what a join token pins.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(digest::digest(&digest::SHA256, certificate).as_ref())
}

/// The fingerprints of the certificates of a PEM text, in their order: the first is the authority that signs.
pub fn bundle_sha256(pem: &str) -> Result<Vec<String>, TlsError> {
    Ok(certificates(pem)?.iter().map(fingerprint).collect())
}
