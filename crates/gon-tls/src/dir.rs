//! `DATA_DIR/tls`: the files of the authority and of the roles of one server.
//!
//! | file | mode | holds |
//! |---|---|---|
//! | `ca.crt` | 0644 | the authorities that are trusted; the first is the one that signs |
//! | `ca.key` | 0600 | the authority's key; on the first server only |
//! | `ca-next.key` | 0600 | the key of the authority that is being introduced; on the first server only |
//! | `ca.crl` | 0644 | revoked certificates; on the first server only |
//! | `ROLE.crt`, `ROLE.key` | 0644, 0600 | a role's certificate with the authority that signed it, and its key |
//!
//! Promises that a file is whole whenever somebody looks, that it survives a power loss once written, and that a key
//! and its certificate are found together even if we were killed between writing the one and the other.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gon_types::{Identity, Role};

use crate::{Authority, CertificateFacts, Issued, SigningRequest, TlsError, certificate};

/// The directory. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsDir(PathBuf);

impl TlsDir {
    /// The directory at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The authorities that are trusted.
    #[must_use]
    pub fn ca_certificates(&self) -> PathBuf {
        self.0.join("ca.crt")
    }
    /// The authority's key.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }
    /// The key of the authority that is being introduced.
    #[must_use]
    pub fn next_ca_key(&self) -> PathBuf {
        self.0.join("ca-next.key")
    }
    /// Revoked certificates.
    #[must_use]
    pub fn revocations(&self) -> PathBuf {
        self.0.join("ca.crl")
    }
    /// A role's certificate.
    #[must_use]
    pub fn certificate(&self, role: Role) -> PathBuf {
        self.0.join(format!("{role}.crt"))
    }
    /// A role's key.
    #[must_use]
    pub fn key(&self, role: Role) -> PathBuf {
        self.0.join(format!("{role}.key"))
    }
    /// A private key of a role that waits for its first certificate, and the request for it.
    #[must_use]
    pub fn joining(&self, role: Role) -> PathBuf {
        self.0.join(format!("{role}.joining"))
    }

    /// Makes the directory if it is missing (mode 0755: keys have modes of their own).
    pub fn make(&self) -> Result<(), TlsError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.0)
            .map_err(|source| TlsError::Io { path: self.0.clone(), source })
    }

    /// Reads a file as text.
    pub fn read(&self, path: &Path) -> Result<String, TlsError> {
        std::fs::read_to_string(path).map_err(|source| TlsError::Io { path: path.to_owned(), source })
    }

    /// Replaces a file.
    pub fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
        // Several processes of a server keep the same authorities.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.new", std::process::id()));
        let beside = PathBuf::from(beside);
        write_synced(&beside, text, mode)?;
        self.rename(&beside, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), TlsError> {
        let io_error = |source| TlsError::Io { path: to.to_owned(), source };
        std::fs::rename(from, to).map_err(io_error)?;
        std::fs::File::open(&self.0).and_then(|dir| dir.sync_all()).map_err(io_error)
    }

    /// Whether this server holds the authority's key.
    #[must_use]
    pub fn has_authority(&self) -> bool {
        self.ca_key().exists()
    }
    /// The authority that signs. Fails where its key is not.
    pub fn authority(&self) -> Result<Authority, TlsError> {
        Authority::from_pem(&self.read(&self.ca_certificates())?, &self.read(&self.ca_key())?)
    }
    /// The authority of this server, made if there is none. An authority that is there is never replaced.
    pub fn authority_or_create(&self) -> Result<Authority, TlsError> {
        if self.has_authority() {
            return self.authority();
        }
        self.make()?;
        let authority = Authority::create()?;
        // The key last: it is what says that there is an authority.
        self.write(&self.ca_certificates(), &authority.certificate_pem(), 0o644)?;
        self.write(&self.ca_key(), &authority.key_pem(), 0o600)?;
        Ok(authority)
    }

    /// Replaces the authorities that are trusted. They must be certificates.
    pub fn trust(&self, bundle_pem: &str) -> Result<(), TlsError> {
        certificate::certificates(bundle_pem)?;
        self.write(&self.ca_certificates(), bundle_pem, 0o644)
    }

    /// Replaces a role's key and certificate, together.
    pub fn install(&self, role: Role, key_pem: &str, certificate_pem: &str) -> Result<(), TlsError> {
        let (certificate, key) = (self.certificate(role), self.key(role));
        // Both lie beside before either moves. Killed between the two moves, `load` finishes what we began.
        write_synced(&beside(&certificate), certificate_pem, 0o644)?;
        write_synced(&beside(&key), key_pem, 0o600)?;
        self.rename(&beside(&key), &key)?;
        match self.rename(&beside(&certificate), &certificate) {
            // Somebody loaded between the two moves and made the second one for us.
            Err(_) if self.read(&certificate).is_ok_and(|text| text == certificate_pem) => Ok(()),
            moved => moved,
        }
    }

    /// A role's certificate and key, which belong together.
    pub fn load(&self, role: Role) -> Result<(String, String), TlsError> {
        let key = self.read(&self.key(role))?;
        let path = self.certificate(role);
        let certificate = self.read(&path);
        if let Ok(certificate) = &certificate
            && belong_together(certificate, &key)?
        {
            return Ok((certificate.clone(), key));
        }
        match std::fs::read_to_string(beside(&path)) {
            Ok(newer) if belong_together(&newer, &key)? => {
                self.rename(&beside(&path), &path)?;
                Ok((newer, key))
            }
            _ => Err(certificate.err().unwrap_or_else(|| TlsError::Mismatch(role.to_string()))),
        }
    }

    /// Makes a key and a certificate for `identity` on the server that holds the authority's key, and installs them.
    pub fn issue(
        &self,
        authority: &Authority,
        identity: &Identity,
        hosts: &[String],
        lifetime: std::time::Duration,
    ) -> Result<Issued, TlsError> {
        let request = SigningRequest::new()?;
        let issued = authority.sign(&request.request_pem, identity, hosts, lifetime)?;
        self.make()?;
        self.install(identity.role(), &request.key_pem, &issued.pem)?;
        Ok(issued)
    }

    /// What the certificate of a role says; `None` if the role has none here.
    pub fn facts(&self, role: Role) -> Result<Option<CertificateFacts>, TlsError> {
        match self.load(role) {
            Ok((pem, _)) => {
                let chain = certificate::certificates(&pem)?;
                chain.first().map(CertificateFacts::read).transpose()
            }
            Err(TlsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn write_synced(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let write = || {
        // What a killed process left may have another mode.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| TlsError::Io { path: path.to_owned(), source })
}

fn belong_together(certificate_pem: &str, key_pem: &str) -> Result<bool, TlsError> {
    let chain = certificate::certificates(certificate_pem)?;
    let key = rcgen::KeyPair::from_pem(key_pem)?;
    match chain.first() {
        Some(leaf) => Ok(certificate::public_key(leaf)? == key.public_key_raw()),
        None => Ok(false),
    }
}

/// Whether a certificate that came back is for our key and names us.
pub fn check_pair(certificate_pem: &str, key_pem: &str, expected: &Identity) -> Result<(), TlsError> {
    if !belong_together(certificate_pem, key_pem)? {
        return Err(TlsError::Mismatch(expected.to_string()));
    }
    let chain = certificate::certificates(certificate_pem)?;
    let found = chain.first().map(CertificateFacts::read).transpose()?.map(|facts| facts.identity);
    match found {
        Some(found) if found != *expected => {
            Err(TlsError::OtherIdentity { found, expected: expected.to_string() })
        }
        _ => Ok(()),
    }
}
