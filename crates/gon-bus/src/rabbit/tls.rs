//! TLS toward the broker: 1.3 only, our authority only, and our certificate if there is one.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};

use super::{ConfigError, Pem, RabbitTls};

/// What a connection needs, read from its files now.
pub(super) fn client(tls: Option<&RabbitTls>) -> Result<Arc<ClientConfig>, ConfigError> {
    let tls = tls.ok_or_else(|| wrong("amqps needs the authority's certificate"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.authority)? {
        roots.add(certificate).map_err(|error| wrong(format!("the authority's certificate: {error}")))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots);
    let config = match &tls.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let pem = text(key)?;
            let key = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes())
                .map_err(|_| wrong("our key is not readable"))?;
            config
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(|error| wrong(format!("our certificate: {error}")))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = text(pem)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.expose_secret().as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("a certificate: {error}")))?;
    if found.is_empty() {
        return Err(wrong("a certificate is missing"));
    }
    Ok(found)
}

fn text(pem: &Pem) -> Result<SecretString, ConfigError> {
    match pem {
        Pem::Text(text) => Ok(text.clone()),
        Pem::File(path) => std::fs::read_to_string(path)
            .map(SecretString::from)
            .map_err(|error| wrong(format!("{}: {error}", path.display()))),
    }
}

fn wrong(why: impl Into<String>) -> ConfigError {
    ConfigError::Tls(why.into())
}
