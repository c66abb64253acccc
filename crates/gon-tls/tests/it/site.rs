//! An authority, servers of it that say who asks, and a plain HTTP client.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::extract::Request;
use axum::routing::get;
use axum::{Extension, Router};
use gon_tls::{Authority, Identity, LIFETIME, Limits, Peer, Role, Tls, TlsDir};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// An authority and the directories of its servers.
pub struct Site {
    pub root: tempfile::TempDir,
    pub authority: Authority,
}

impl Site {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = TlsDir::new(&root.path().join("first")).authority_or_create().unwrap();
        Self { root, authority }
    }

    /// The server that holds the authority's key.
    pub fn first(&self) -> TlsDir {
        TlsDir::new(&self.root.path().join("first"))
    }

    /// A server of the site with a certificate for `role`, named as its directory.
    pub fn member(&self, role: Role, name: &str) -> Tls {
        let dir = self.dir(name);
        self.issue(&dir, role, name);
        Tls::open(&dir, role).unwrap()
    }

    pub fn dir(&self, name: &str) -> TlsDir {
        let dir = TlsDir::new(&self.root.path().join(name));
        dir.make().unwrap();
        dir.trust(&self.authority.certificate_pem()).unwrap();
        dir
    }

    pub fn issue(&self, dir: &TlsDir, role: Role, name: &str) {
        dir.issue(
            &self.authority,
            &identity(role, name),
            &[name.to_owned(), "127.0.0.1".to_owned()],
            LIFETIME,
        )
        .unwrap();
    }
}

pub fn identity(role: Role, name: &str) -> Identity {
    Identity::new(role, name).unwrap()
}

pub struct Server {
    pub address: SocketAddr,
    pub stop: CancellationToken,
}
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn who(Extension(peer): Extension<Peer>) -> String {
    peer.certificate.map_or("nobody".to_owned(), |shown| format!("{} {}", shown.identity, shown.serial))
}

/// Answers on `/who` who asks, on `/slow` half a second later.
pub async fn serve(tls: &Tls, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let slow = |peer: Extension<Peer>, _: Request| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        who(peer).await
    };
    let router = Router::new().route("/who", get(who)).route("/slow", get(slow));
    tokio::spawn(gon_tls::serve(listener, Some(tls.clone()), router, limits, stop.clone()));
    Server { address, stop }
}

/// A connection that HTTP is spoken over.
pub struct Client(SendRequest<Empty<Bytes>>);

impl Client {
    pub async fn over<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> io::Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub async fn get(&mut self, path: &str) -> io::Result<String> {
        let request =
            hyper::Request::get(path).header("host", "test").body(Empty::new()).map_err(io::Error::other)?;
        self.0.ready().await.map_err(io::Error::other)?;
        let response = self.0.send_request(request).await.map_err(io::Error::other)?;
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// A new connection of `tls` to a server that should have the role `expected`.
pub async fn connect(tls: &Tls, address: SocketAddr, expected: Role) -> io::Result<Client> {
    let stream = TcpStream::connect(address).await?;
    Client::over(tls.connect(stream, expected, "127.0.0.1").await?).await
}

/// Who the server says that `tls` is.
pub async fn ask(tls: &Tls, address: SocketAddr, expected: Role) -> io::Result<String> {
    connect(tls, address, expected).await?.get("/who").await
}

/// The text of a file's permissions.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
