//! What a process shows and whom it believes, replaced while it runs.
//!
//! One [`Tls`] per role. Every new connection takes what is current; what was current before goes on being used by the
//! connections that began with it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gon_types::{Identity, Role};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::verify::{ClientVerifier, ServerVerifier, Trust};
use crate::{CertificateFacts, TlsDir, TlsError, certificate, fingerprint, provider};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What is shown and believed at one moment.
#[derive(Debug)]
pub struct Current {
    facts: CertificateFacts,
    /// Fingerprints of the authorities, the one that signs first.
    authorities: Vec<String>,
    /// Whether our certificate is of the authority that signs now.
    of_first: bool,
    roots: Arc<RootCertStore>,
    key: Arc<CertifiedKey>,
    clients: Arc<ClientVerifier>,
    server: Arc<ServerConfig>,
}

impl Current {
    fn new(bundle_pem: &str, certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let provider = provider();
        let bundle = certificate::certificates(bundle_pem)?;
        let mut chain = certificate::certificates(certificate_pem)?;
        let leaf = chain.first().ok_or_else(|| TlsError::Malformed("no certificate".to_owned()))?;
        let facts = CertificateFacts::read(leaf)?;
        let issuer = bundle.iter().find(|ca| certificate::is_issued_by(leaf, ca));
        let of_first = bundle.first().is_some_and(|first| Some(first) == issuer);
        // Who joins knows the authority's fingerprint only, and finds it here.
        if let (1, Some(issuer)) = (chain.len(), issuer) {
            chain.push(issuer.clone());
        }
        let mut roots = RootCertStore::empty();
        for authority in &bundle {
            roots.add(authority.clone())?;
        }
        let roots = Arc::new(roots);
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| TlsError::Malformed(format!("this is not a key: {error}")))?;
        let key = Arc::new(CertifiedKey::from_der(chain, key, &provider)?);
        let clients = Arc::new(ClientVerifier::new(Arc::clone(&roots), Arc::clone(&provider))?);
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&clients) as _)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&key))));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session would not look at the certificate again.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            authorities: bundle.iter().map(fingerprint).collect(),
            facts,
            of_first,
            roots,
            key,
            clients,
            server: Arc::new(server),
        })
    }

    /// What our own certificate says.
    #[must_use]
    pub const fn facts(&self) -> &CertificateFacts {
        &self.facts
    }
    /// Fingerprints of the authorities we believe, the one that signs first.
    #[must_use]
    pub fn authorities(&self) -> &[String] {
        &self.authorities
    }
    /// Whether our certificate is of the authority that signs now: if not, it is time for another.
    #[must_use]
    pub const fn is_of_signing_authority(&self) -> bool {
        self.of_first
    }
    /// For who serves.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
    /// For who asks a server that should have the role `expected`. Speaks HTTP/1.1.
    pub fn client(&self, expected: Role) -> Result<ClientConfig, TlsError> {
        let verifier =
            ServerVerifier { trust: Trust::Roots(Arc::clone(&self.roots)), expected, provider: provider() };
        let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&self.key)));
        client_config(verifier, |builder| builder.with_client_cert_resolver(resolver))
    }

    /// Whether a client that was believed would be believed now.
    pub(crate) fn believes(&self, client: &CertificateDer<'_>) -> bool {
        self.clients.verify_client_cert(client, &[], UnixTime::now()).is_ok()
    }
}

type WantsClientCert = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

/// A client's configuration; `show` says what the client shows.
pub(crate) fn client_config(
    verifier: ServerVerifier,
    show: impl FnOnce(WantsClientCert) -> ClientConfig,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = show(builder);
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What a role shows and believes. Clones are the same.
#[derive(Debug, Clone)]
pub struct Tls {
    dir: TlsDir,
    role: Role,
    current: Arc<watch::Sender<Arc<Current>>>,
}

impl Tls {
    /// Reads the files of `role`; its certificate must name that role.
    pub fn open(dir: &TlsDir, role: Role) -> Result<Self, TlsError> {
        let current = Self::read(dir, role)?;
        Ok(Self { dir: dir.clone(), role, current: Arc::new(watch::Sender::new(Arc::new(current))) })
    }

    fn read(dir: &TlsDir, role: Role) -> Result<Current, TlsError> {
        let (certificate, key) = dir.load(role)?;
        let current = Current::new(&dir.read(&dir.ca_certificates())?, &certificate, &key)?;
        if current.facts.identity.role() != role {
            let expected = format!("{}{role}/…", Identity::SCHEME);
            return Err(TlsError::OtherIdentity { found: current.facts.identity, expected });
        }
        Ok(current)
    }

    /// Reads the files again. On an error everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.send_replace(Arc::new(Self::read(&self.dir, self.role)?));
        Ok(())
    }

    /// Reloads whenever the files change, until `stop`. Files that cannot be used are reported and left alone.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut seen = self.stamps();
        let mut refused = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = self.stamps();
            if now == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => {
                    tracing::info!(role = %self.role, "certificates were replaced");
                    (seen, refused) = (now, None);
                }
                // Told once and tried again: it may only have been us who could not read them.
                Err(error) if refused != Some(now) => {
                    tracing::error!(
                        role = %self.role,
                        error = &error as &dyn std::error::Error,
                        "new certificates cannot be used; the old ones stay"
                    );
                    refused = Some(now);
                }
                Err(_) => {}
            }
        }
    }

    /// Which files lie there: every replacement is a new file.
    fn stamps(&self) -> [Option<(u64, i64, i64)>; 3] {
        use std::os::unix::fs::MetadataExt as _;
        [self.dir.ca_certificates(), self.dir.certificate(self.role), self.dir.key(self.role)].map(|path| {
            std::fs::metadata(path).ok().map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec()))
        })
    }

    /// Where its files are.
    #[must_use]
    pub const fn dir(&self) -> &TlsDir {
        &self.dir
    }
    /// Its role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }
    /// What is shown and believed now.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.borrow())
    }
    /// Tells whenever that is replaced.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Current>> {
        self.current.subscribe()
    }

    /// Speaks TLS over `stream` to a server that has to have the role `expected`, and shows our certificate. `host` is
    /// for the server's information only. Whether the server believes us shows at the first answer.
    pub async fn connect<S>(&self, stream: S, expected: Role, host: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.current().client(expected).map_err(io::Error::other)?;
        connect(config, stream, host).await
    }
}

pub(crate) async fn connect<S>(config: ClientConfig, stream: S, host: &str) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("'{host}' is no host")))?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
