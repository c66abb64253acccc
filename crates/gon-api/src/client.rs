//! A thin client of the REST API: one connection kept open, JSON in and out, problems as errors.
//!
//! Assumes HTTP/1.1 on TCP, with TLS where the address says https: then only servers whose certificate is of the given
//! authority are believed. Promises that a problem document comes back whole ([`ClientError::Problem`]), that a request
//! is repeated only when the connection was found closed before anything was sent on it, and that the token is never
//! printed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// No answer of the API is larger.
const MAX_BODY: usize = 64 << 20;

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("'{0}' is not an address such as http://127.0.0.1:8080")]
    Address(String),
    /// An address with https needs an authority to believe.
    #[error("{0}")]
    Authority(String),
    /// Nobody answers there.
    #[error("the API at {address} cannot be reached")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or the answer did not come in time.
    #[error("the connection to the API failed: {0}")]
    Transport(String),
    /// The API said no.
    #[error("{}", problem_text(.status, .body))]
    Problem {
        /// HTTP status.
        status: StatusCode,
        /// The problem document (RFC 9457), or whatever came instead.
        body: Value,
    },
}

impl ClientError {
    /// EC2's code of a problem.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem { body, .. } => body.get("code").and_then(Value::as_str),
            _ => None,
        }
    }
    /// HTTP status of a problem.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Problem { status, .. } => Some(*status),
            _ => None,
        }
    }
}

fn problem_text(status: &StatusCode, body: &Value) -> String {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    match (text("code"), text("detail")) {
        (Some(code), Some(detail)) => {
            let field = text("field").map(|f| format!(" (field {f})")).unwrap_or_default();
            let request = text("request_id").map(|r| format!(" [{r}]")).unwrap_or_default();
            format!("{code}: {detail}{field}{request}")
        }
        _ => format!("the API answered {status}"),
    }
}

/// An answer that is not a problem.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status, 2xx.
    pub status: StatusCode,
    /// The entity tag, for `If-Match`.
    pub etag: Option<String>,
    /// The body; null when there is none.
    pub body: Value,
}

/// A client with one connection. Calls on one client run one after another; make several for parallel ones.
pub struct Client {
    authority: String,
    tls: Option<(tokio_rustls::TlsConnector, ServerName<'static>)>,
    token: Option<String>,
    timeout: Duration,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for `http://host:port`. Nothing is sent yet.
    pub fn new(base_url: &str) -> Result<Self, ClientError> {
        Self::trusting(base_url, None)
    }

    /// A client for `http://host:port`, or for `https://host:port` whose certificate is of `authority` (PEM). Nothing is
    /// sent yet.
    pub fn trusting(base_url: &str, authority: Option<&str>) -> Result<Self, ClientError> {
        let bad = || ClientError::Address(base_url.to_owned());
        let (secure, place) = match (base_url.strip_prefix("http://"), base_url.strip_prefix("https://")) {
            (Some(place), _) => (false, place),
            (_, Some(place)) => (true, place),
            _ => return Err(bad()),
        };
        let place = place.trim_end_matches('/');
        if place.is_empty() || place.contains(['/', '@', ' ']) {
            return Err(bad());
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port),
            _ => (place, if secure { "443" } else { "80" }),
        };
        let tls = if secure {
            let Some(authority) = authority else {
                return Err(ClientError::Authority(format!(
                    "{base_url} needs the certificate of the authority to believe: --ca FILE (on a server of the site: /var/lib/gon/ca.crt)"
                )));
            };
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| bad())?;
            Some((connector(authority)?, name))
        } else {
            None
        };
        Ok(Self {
            authority: format!("{host}:{port}"),
            tls,
            token: None,
            timeout: Duration::from_secs(70),
            connection: Mutex::new(None),
        })
    }

    /// Sends this bearer token from now on.
    pub fn set_token(&mut self, token: Option<String>) {
        self.token = token;
    }

    /// Signs in and keeps the access token; returns the answer, which also has the refresh token.
    pub async fn login(&mut self, username: &str, password: &str) -> Result<Value, ClientError> {
        let body = serde_json::json!({ "username": username, "password": password });
        let answer = self.call(Method::POST, "/api/v1/auth/login", Some(&body), &[]).await?;
        self.token = answer.body.get("access_token").and_then(Value::as_str).map(ToOwned::to_owned);
        Ok(answer.body)
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        Ok(self.call(Method::GET, path, None, &[]).await?.body)
    }
    /// POST.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        Ok(self.call(Method::POST, path, Some(body), &[]).await?.body)
    }
    /// PUT.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        Ok(self.call(Method::PUT, path, Some(body), &[]).await?.body)
    }
    /// DELETE.
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        Ok(self.call(Method::DELETE, path, None, &[]).await?.body)
    }

    /// Every item of a list, page after page.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page_path =
                cursor.as_ref().map_or_else(|| path.to_owned(), |c| format!("{path}{joint}cursor={c}"));
            let page = self.get(&page_path).await?;
            if let Some(more) = page.get("items").and_then(Value::as_array) {
                items.extend(more.iter().cloned());
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(items),
            }
        }
    }

    /// Any call.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ClientError> {
        let bytes = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
        let mut connection = self.connection.lock().await;
        let mut open = connection.take();
        if let Some(sender) = &mut open
            && sender.ready().await.is_err()
        {
            open = None;
        }
        let mut sender = match open {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let request = self.request(method, path, bytes, body.is_some(), headers)?;
        let transport = |error: hyper::Error| ClientError::Transport(error.to_string());
        let exchange = async {
            let response = sender.send_request(request).await.map_err(transport)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY)
                .collect()
                .await
                .map_err(|e| ClientError::Transport(e.to_string()))?
                .to_bytes();
            Ok::<_, ClientError>((parts, body))
        };
        let (parts, bytes) = tokio::time::timeout(self.timeout, exchange).await.map_err(|_| {
            ClientError::Transport(format!("no answer within {} s", self.timeout.as_secs()))
        })??;
        *connection = Some(sender);
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()))
        };
        if !parts.status.is_success() {
            return Err(ClientError::Problem { status: parts.status, body });
        }
        let etag = parts.headers.get("etag").and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
        Ok(Answer { status: parts.status, etag, body })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        json: bool,
        headers: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let bad = |what: String| ClientError::Transport(what);
        let mut builder = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        if json {
            builder = builder.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| bad(e.to_string()))?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad(e.to_string()))?;
            builder = builder.header(name, *value);
        }
        builder.body(Full::new(body)).map_err(|e| bad(e.to_string()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let refused = |source| ClientError::Connect { address: self.authority.clone(), source };
        let stream = TcpStream::connect(&self.authority).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        match &self.tls {
            None => speak(stream).await,
            Some((connector, name)) => {
                let handshake = connector.connect(name.clone(), stream);
                speak(handshake.await.map_err(refused)?).await
            }
        }
    }
}

/// HTTP over a stream.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, ClientError> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| ClientError::Transport(e.to_string()))?;
    // Ends with the sender or the peer; an error shows in the next send.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// What believes the certificates of one authority and of nobody else.
fn connector(authority: &str) -> Result<tokio_rustls::TlsConnector, ClientError> {
    let bad =
        |why: String| ClientError::Authority(format!("the authority's certificate cannot be used: {why}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("there is no certificate in it".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain() {
        assert!(Client::new("http://127.0.0.1:8080").is_ok());
        assert_eq!(Client::new("http://cloud.example/").unwrap().authority, "cloud.example:80");
        let needs = Client::new("https://x").unwrap_err();
        assert!(needs.to_string().contains("--ca"), "{needs}");
        for nothing in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(Client::trusting("https://x", Some(nothing)), Err(ClientError::Authority(_))));
        }
        for bad in ["127.0.0.1:8080", "http://", "http://a/b", "http://user@host", "ftp://x"] {
            assert!(Client::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_problem_says_code_field_and_request() {
        let error = ClientError::Problem {
            status: StatusCode::BAD_REQUEST,
            body: serde_json::json!({"code": "InvalidVpc.Range", "detail": "too large", "field": "cidr_block", "request_id": "req-1"}),
        };
        assert_eq!(error.to_string(), "InvalidVpc.Range: too large (field cidr_block) [req-1]");
        assert_eq!(error.code(), Some("InvalidVpc.Range"));
    }

    #[test]
    fn the_token_is_not_printed() {
        let mut client = Client::new("http://h").unwrap();
        client.set_token(Some("secret".to_owned()));
        assert!(!format!("{client:?}").contains("secret"));
    }
}
