//! The certificate authority of a site.
//!
//! Assumes that its key is on one server only. Promises that a certificate says what the authority was told to say:
//! from a request it takes the public key and nothing else, after checking that the sender holds the private one.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::rand;
use gon_types::Identity;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;

use crate::certificate::{self, hex};
use crate::{TlsError, fingerprint};

/// How long a certificate is good unless somebody says otherwise.
pub const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long an authority is good.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far the clocks of two servers may be apart.
const SKEW: Duration = Duration::from_secs(5 * 60);
/// How long a revocation list is good.
const LIST_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// A request is a key and a signature; this is ten times as much.
const REQUEST_LIMIT: usize = 8 << 10;
/// Other names of one certificate.
const MOST_HOSTS: usize = 32;
/// An uncompressed point of P-256.
const POINT: usize = 65;

/// The authority: its certificate and its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Authority").field(&self.sha256()).finish()
    }
}

/// A certificate that was just signed.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and the authority that signed it, PEM.
    pub pem: String,
    /// Its number, lower-case hexadecimal.
    pub serial: String,
    /// From when it is good.
    pub not_before: OffsetDateTime,
    /// Until when.
    pub not_after: OffsetDateTime,
}

/// A certificate that is not to be believed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its number, hexadecimal.
    pub serial: String,
    /// Since when.
    pub since: OffsetDateTime,
}

/// A key of our own, and the request for a certificate for it. The key never leaves the machine that made it.
pub struct SigningRequest {
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
    /// The request, PKCS #10 PEM.
    pub request_pem: String,
}

impl std::fmt::Debug for SigningRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningRequest").finish_non_exhaustive()
    }
}

impl SigningRequest {
    /// Makes a key (ECDSA P-256) and its request.
    pub fn new() -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request_pem = params.serialize_request(&key)?.pem()?;
        Ok(Self { key_pem: key.serialize_pem(), request_pem })
    }
}

impl Authority {
    /// A new authority with a name and a key of its own.
    pub fn create() -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Two authorities of a site, while one replaces the other, are told apart by their names.
        let name = format!("Gon site authority {}", hex(&random::<8>()?));
        params.distinguished_name = named(&[(DnType::CommonName, &name)]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = now();
        (params.not_before, params.not_after) = (now - SKEW, now + AUTHORITY_LIFETIME);
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { not_after: params.not_after, certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority of `key_pem`; its certificate is the one among those of `bundle_pem` that has this key.
    pub fn from_pem(bundle_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key_pem)?;
        let bundle = certificate::certificates(bundle_pem)?;
        for certificate in bundle {
            if certificate::public_key(&certificate)? == key.public_key_raw() {
                let not_after = certificate::not_after(&certificate)?;
                let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
                return Ok(Self { certificate, not_after, issuer });
            }
        }
        Err(TlsError::Mismatch("ca".to_owned()))
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        certificate::to_pem(&self.certificate)
    }
    /// Its key, PEM: for its file and nothing else.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
    /// SHA-256 of its certificate, hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// Signs the key of a request for `identity`, reached as `hosts` (host names and addresses), for `lifetime`, but not
    /// beyond the authority's own life. Names and everything else that the request asks for are ignored.
    pub fn sign(
        &self,
        request_pem: &str,
        identity: &Identity,
        hosts: &[String],
        lifetime: Duration,
    ) -> Result<Issued, TlsError> {
        let from = now() - SKEW;
        self.sign_between(request_pem, identity, hosts, from, now() + lifetime)
    }

    /// Like [`Self::sign`], good from `not_before` to `not_after`.
    pub fn sign_between(
        &self,
        request_pem: &str,
        identity: &Identity,
        hosts: &[String],
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<Issued, TlsError> {
        let refused = |what: &str| TlsError::Request(what.to_owned());
        if request_pem.len() > REQUEST_LIMIT || !request_pem.contains("BEGIN CERTIFICATE REQUEST") {
            return Err(refused("it is no PKCS #10 request in PEM of at most 8 KiB"));
        }
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|error| TlsError::Request(error.to_string()))?;
        let is_p256 = *request.public_key.algorithm() == rcgen::PKCS_ECDSA_P256_SHA256
            && request.public_key.der_bytes().len() == POINT;
        if !is_p256 {
            return Err(refused("only keys of ECDSA P-256 are signed"));
        }
        let not_after = not_after.min(self.not_after);
        let serial = serial()?;
        let mut params = CertificateParams::default();
        // Users of the bus, of etcd and of PostgreSQL are roles, by the common name.
        params.distinguished_name = named(&[
            (DnType::CommonName, identity.role().as_str()),
            (DnType::OrganizationalUnitName, identity.name()),
        ]);
        params.subject_alt_names = alternative_names(identity, hosts)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        (params.not_before, params.not_after) = (not_before, not_after);
        let leaf = params.signed_by(&request.public_key, &self.issuer)?;
        // The authority goes with it: who only knows its fingerprint finds it in the handshake.
        let pem = certificate::to_pem(leaf.der()) + &self.certificate_pem();
        Ok(Issued { pem, serial: hex(&serial), not_before, not_after })
    }

    /// The list of revoked certificates, PEM, for servers that do not ask our database (etcd, RabbitMQ, PostgreSQL).
    /// `number` rises from list to list.
    pub fn revocation_list(&self, revoked: &[Revoked], number: u64) -> Result<String, TlsError> {
        let revoked_certs = revoked
            .iter()
            .map(|revoked| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&unhex(&revoked.serial)?),
                    revocation_time: revoked.since,
                    reason_code: Some(RevocationReason::PrivilegeWithdrawn),
                    invalidity_date: None,
                })
            })
            .collect::<Result<_, TlsError>>()?;
        let now = now();
        let list = CertificateRevocationListParams {
            this_update: now - SKEW,
            next_update: now + LIST_LIFETIME,
            crl_number: SerialNumber::from_slice(&number.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn named(parts: &[(DnType, &str)]) -> DistinguishedName {
    parts.iter().fold(DistinguishedName::new(), |mut name, (kind, value)| {
        name.push(kind.clone(), *value);
        name
    })
}

fn alternative_names(identity: &Identity, hosts: &[String]) -> Result<Vec<SanType>, TlsError> {
    if hosts.len() > MOST_HOSTS {
        return Err(TlsError::Malformed(format!("{} names are too many for a certificate", hosts.len())));
    }
    let mut names = vec![SanType::URI(ia5(&identity.to_string())?)];
    for host in hosts {
        names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => match ServerName::try_from(host.as_str()) {
                Ok(ServerName::DnsName(_)) => SanType::DnsName(ia5(host)?),
                _ => {
                    return Err(TlsError::Malformed(format!(
                        "'{host}' is neither a host name nor an address"
                    )));
                }
            },
        });
    }
    Ok(names)
}

fn ia5(text: &str) -> Result<Ia5String, TlsError> {
    Ok(Ia5String::try_from(text)?)
}

/// A random number that is positive and has its full length, so that there is one way to write it.
fn serial() -> Result<[u8; 16], TlsError> {
    let mut serial: [u8; 16] = random()?;
    serial[0] = (serial[0] & 0x3f) | 0x40;
    Ok(serial)
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], TlsError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| TlsError::Malformed("there is no randomness".to_owned()))?;
    Ok(bytes)
}

pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, TlsError> {
    let wrong = || TlsError::Malformed("this is not hexadecimal".to_owned());
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err(wrong());
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong()))
        .collect()
}
