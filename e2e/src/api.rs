//! The cloud's API as a test calls it: blocking, from outside the namespace, signed in.

use std::sync::Mutex;

use anyhow::{Context, anyhow, bail};
use gon_api::client::{Answer, Client, ClientError};
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::namespace::Namespace;

/// A signed-in client. Calls run one after another.
pub struct Api {
    inside: Namespace,
    runtime: tokio::runtime::Runtime,
    client: Mutex<Client>,
    username: String,
    password: String,
    token: Mutex<Option<String>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("inside", &self.inside.name()).finish_non_exhaustive()
    }
}

impl Api {
    /// A client of the API at `url` inside a namespace. Nothing is sent yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(inside: &Namespace, url: &str, username: &str, password: &str) -> anyhow::Result<Self> {
        Self::of(inside, Client::new(url)?, username, password)
    }

    /// A client of the API at an https address whose certificate is of `authority` (PEM). Nothing is sent yet.
    ///
    /// # Errors
    /// When the address is none, or the authority.
    pub fn trusting(
        inside: &Namespace,
        url: &str,
        authority: &str,
        username: &str,
        password: &str,
    ) -> anyhow::Result<Self> {
        Self::of(inside, Client::trusting(url, Some(authority))?, username, password)
    }

    fn of(inside: &Namespace, client: Client, username: &str, password: &str) -> anyhow::Result<Self> {
        // The worker drives the open connection between calls; connections are made by the caller's thread.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self {
            inside: inside.clone(),
            runtime,
            client: Mutex::new(client),
            username: username.to_owned(),
            password: password.to_owned(),
            token: Mutex::default(),
        })
    }

    /// Signs in.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub fn login(&self) -> anyhow::Result<()> {
        self.inside.enter(|| {
            let mut client = self.client.lock().map_err(|_| anyhow!("a call panicked"))?;
            let answer = self.runtime.block_on(client.login(&self.username, &self.password))?;
            *self.token.lock().map_err(|_| anyhow!("a call panicked"))? =
                Some(text(&answer, "access_token")?);
            Ok(())
        })
    }

    /// The access token of the last sign-in.
    ///
    /// # Errors
    /// When there was none.
    pub fn token(&self) -> anyhow::Result<String> {
        let token = self.token.lock().map_err(|_| anyhow!("a call panicked"))?;
        token.clone().context("nobody is signed in")
    }

    /// Any call, as it was answered.
    ///
    /// # Errors
    /// When there was no answer at all.
    pub fn call(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Result<Answer, ClientError>> {
        let attempt = || {
            self.inside.enter(|| {
                let client = self.client.lock().map_err(|_| anyhow!("a call panicked"))?;
                Ok(self.runtime.block_on(client.call(method.clone(), path, body, &[])))
            })
        };
        let answer = attempt()?;
        if matches!(&answer, Err(e) if e.status() == Some(StatusCode::UNAUTHORIZED)) {
            self.login()?;
            return attempt();
        }
        match answer {
            Err(error) if error.status().is_none() => {
                Err(anyhow::Error::new(error).context(format!("{method} {path}")))
            }
            answer => Ok(answer),
        }
    }

    fn must(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let path = format!("/api/v1{path}");
        match self.call(method, &path, body)? {
            Ok(answer) => Ok(answer.body),
            Err(error) => {
                let sent = body.map(Value::to_string).unwrap_or_default();
                Err(anyhow::Error::new(error).context(format!("{method} {path} {sent}")))
            }
        }
    }

    /// GET below `/api/v1`.
    ///
    /// # Errors
    /// When it is not answered with 2xx.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.must(&Method::GET, path, None)
    }
    /// POST below `/api/v1`.
    ///
    /// # Errors
    /// When it is not answered with 2xx.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.must(&Method::POST, path, Some(body))
    }
    /// One attempt of a POST below `/api/v1` that is the same request as every other with this key; as it was answered,
    /// or not.
    ///
    /// # Errors
    /// When nobody answered, or refused.
    pub fn post_once(&self, path: &str, body: &Value, key: &str) -> anyhow::Result<Value> {
        let path = format!("/api/v1{path}");
        self.inside.enter(|| {
            let client = self.client.lock().map_err(|_| anyhow!("a call panicked"))?;
            let headers = [("idempotency-key", key)];
            let call = client.call(Method::POST, &path, Some(body), &headers);
            Ok(self.runtime.block_on(call)?.body)
        })
    }
    /// DELETE below `/api/v1`.
    ///
    /// # Errors
    /// When it is not answered with 2xx.
    pub fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.must(&Method::DELETE, path, None)
    }

    /// A call that must be refused; EC2's code of the problem.
    ///
    /// # Errors
    /// When it is not refused.
    pub fn refused(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<String> {
        match self.call(method, &format!("/api/v1{path}"), body)? {
            Ok(answer) => bail!("{method} {path} was not refused: {}", answer.body),
            Err(error) => Ok(error.code().context("a problem has a code")?.to_owned()),
        }
    }
}

/// A text field of an answer.
///
/// # Errors
/// When it is not there.
pub fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    let found = value.get(field).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no '{field}' in {value}"))?.to_owned())
}
