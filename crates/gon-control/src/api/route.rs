//! The one way to register a route. It names its action, so a route without authorisation cannot exist; its types are
//! its documentation, so the OpenAPI document cannot say anything else than what is served.
//!
//! What happens to every call, in order: authenticate (401), authorise (403), path, query and body (400), idempotency
//! key (replay or 409), the service, and again if it lost a race inside PostgreSQL.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use bytes::Bytes;
use gon_core::authz::{Action, Actor, Denied, Role, authorize, object_of};
use gon_store::journal::Author;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Required};
use utoipa::{IntoParams, ToSchema};

use super::auth::authenticate;
use super::error::ApiError;
use super::extract::{PathArgs, Payload, describe_schema, etag, if_match, query, read_body, text_schema};
use super::state::AppState;
use crate::service::{Cx, IdempotencyKey, Kind, Refusal, Resource, Result};

/// What a route is.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its name in the OpenAPI document.
    pub operation: &'static str,
    /// Method.
    pub method: Verb,
    /// Path below `/api/v1`.
    pub path: &'static str,
    /// Status of a good answer.
    pub status: u16,
    /// One line.
    pub summary: &'static str,
}

/// The four methods there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Makes, or does.
    Post,
    /// Changes.
    Put,
    /// Removes.
    Delete,
}

impl Verb {
    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Delete => MethodFilter::DELETE,
        }
    }
    fn openapi(self) -> HttpMethod {
        match self {
            Self::Get => HttpMethod::Get,
            Self::Post => HttpMethod::Post,
            Self::Put => HttpMethod::Put,
            Self::Delete => HttpMethod::Delete,
        }
    }
    fn http(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Delete => Method::DELETE,
        }
    }
}

/// A route that was registered.
#[derive(Debug, Clone)]
pub struct RouteInfo {
    /// Its method.
    pub method: Method,
    /// Its whole path, with `{…}`.
    pub path: String,
    /// Its action; `None` for the few that are public.
    pub action: Option<Action>,
}

/// The request's name in logs and answers.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// A call of somebody who is not signed in.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// What the API server has.
    pub app: AppState,
    /// Where the request came from.
    pub address: Option<IpAddr>,
}

/// Routes and what they say of themselves.
#[derive(Default)]
pub struct Routes {
    /// For axum.
    pub router: Router<AppState>,
    /// For the OpenAPI document.
    pub paths: Paths,
    /// For the OpenAPI document.
    pub schemas: Vec<(String, RefOr<Schema>)>,
    /// For tests and the audit of the table.
    pub infos: Vec<RouteInfo>,
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routes").field("infos", &self.infos).finish_non_exhaustive()
    }
}

impl Routes {
    /// A route for those who are signed in and may do that.
    pub fn add<P, Q, B, R, F, Fut>(&mut self, action: Action, spec: Spec, service: F)
    where
        P: PathArgs,
        Q: DeserializeOwned + IntoParams + Clone + Send + Sync + 'static,
        B: Payload,
        R: Resource + ToSchema + Send,
        F: Fn(Cx, P, Q, B) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
    {
        let path = self.describe::<Q, B, R>(spec, Some(action));
        let names = Arc::new(names_in(spec.path));
        let handler = move |State(app): State<AppState>, request: Request| {
            let (service, names) = (service.clone(), Arc::clone(&names));
            async move {
                let request_id = request_id(request.extensions());
                let done = async {
                    let (parts, body) = request.into_parts();
                    let call = enter(app, action, spec.status, parts, body).await?;
                    let most = call.cx.app.config.max_in_flight.div_ceil(4);
                    let _place = call.cx.app.places.take(call.cx.account(), most).ok_or_else(|| {
                        let mut refusal = Refusal::new(
                            Kind::Unavailable,
                            "RequestLimitExceeded",
                            "your account has too many requests in work",
                        );
                        refusal.retry_after = Some(1);
                        refusal
                    })?;
                    let result = async {
                        let path = P::parse(&names, &call.values)?;
                        let query = query::<Q>(&call.parts.uri)?;
                        let body = B::parse(&call.parts.headers, &call.body)?;
                        let _turn = match &call.cx.idempotency {
                            Some(key) => {
                                let turn = call.cx.app.turns.take(call.cx.account(), &key.key);
                                Some(gon_store::aside(turn).await)
                            }
                            None => None,
                        };
                        if let Some(replay) = replay(&call.cx).await? {
                            return Ok(replay);
                        }
                        let mut attempt = 0;
                        let answer = loop {
                            attempt += 1;
                            match service(call.cx.clone(), path.clone(), query.clone(), body.clone()).await {
                                Err(refusal) if refusal.kind == Kind::Retry && attempt < 4 => {
                                    if let Some(replay) = replay(&call.cx).await? {
                                        return Ok(replay);
                                    }
                                }
                                Err(refusal) => {
                                    // The same request may have been done meanwhile by a twin of this one, or by
                                    // itself, if what failed was to hear of it.
                                    match replay(&call.cx).await {
                                        Ok(Some(replay)) => return Ok(replay),
                                        // Who cannot look knows no more than before: "unknown" stays so.
                                        Err(failed) if failed.kind != Kind::Unavailable => break Err(failed),
                                        Ok(None) | Err(_) => break Err(refusal),
                                    }
                                }
                                Ok(answer) => break Ok(answer),
                            }
                        }?;
                        answered(spec.status, &answer)
                    };
                    result.await
                };
                // Its future is large, and there is one kind of it per route.
                Box::pin(done)
                    .await
                    .unwrap_or_else(|refusal| ApiError::new(refusal, request_id).into_response())
            }
        };
        self.router = std::mem::take(&mut self.router).route(&path, on(spec.method.filter(), handler));
    }

    /// A route for everybody: for signing in, and nothing else.
    pub fn public<B, R, F, Fut>(&mut self, spec: Spec, service: F)
    where
        B: Payload,
        R: serde::Serialize + ToSchema + Send,
        F: Fn(Visitor, B) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
    {
        let path = self.describe::<gon_api::page::NoQuery, B, R>(spec, None);
        let handler = move |State(app): State<AppState>, request: Request| {
            let service = service.clone();
            async move {
                let request_id = request_id(request.extensions());
                let done = async {
                    let (parts, body) = request.into_parts();
                    let body = gon_store::aside(read_body(&parts.headers, body)).await?;
                    query::<gon_api::page::NoQuery>(&parts.uri)?;
                    let body = B::parse(&parts.headers, &body)?;
                    let answer = service(Visitor { app, address: peer(&parts) }, body).await?;
                    json_response(spec.status, serde_json::to_vec(&answer).ok())
                };
                done.await.unwrap_or_else(|refusal| ApiError::new(refusal, request_id).into_response())
            }
        };
        self.router = std::mem::take(&mut self.router).route(&path, on(spec.method.filter(), handler));
    }

    fn describe<Q: IntoParams, B: Payload, R: ToSchema>(
        &mut self,
        spec: Spec,
        action: Option<Action>,
    ) -> String {
        let path = format!("{}{}", gon_api::BASE, spec.path);
        let tag = spec.path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let mut operation = OperationBuilder::new()
            .operation_id(Some(spec.operation))
            .summary(Some(spec.summary))
            .tag(tag)
            .parameters(Some(names_in(spec.path).into_iter().map(|name| {
                ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .description(Some("Shown (`vpc-…`) or whole (a UUID)."))
                    .schema(Some(text_schema()))
            })))
            .parameters(Some(Q::into_params(|| Some(ParameterIn::Query))));
        let header = |name: &str, words: &str| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(words))
                .schema(Some(text_schema()))
        };
        if spec.method == Verb::Post && action.is_some() {
            operation = operation.parameter(header(
                "Idempotency-Key",
                "1 to 64 characters: the same key and request is done once and answered alike for a day.",
            ));
        }
        if spec.method == Verb::Put {
            operation = operation.parameter(header(
                "If-Match",
                "The ETag of an answer: change only if nothing changed since.",
            ));
        }
        if let Some((name, required)) = B::describe(&mut self.schemas) {
            operation = operation.request_body(Some(
                RequestBodyBuilder::new()
                    .content(
                        "application/json",
                        ContentBuilder::new().schema(Some(Ref::from_schema_name(name))).build(),
                    )
                    .required(Some(if required { Required::True } else { Required::False }))
                    .build(),
            ));
        }
        let mut good = ResponseBuilder::new().description(
            StatusCode::from_u16(spec.status).ok().and_then(|s| s.canonical_reason()).unwrap_or("OK"),
        );
        if spec.status != 204 {
            let name = describe_schema::<R>(&mut self.schemas);
            good = good.content(
                "application/json",
                ContentBuilder::new().schema(Some(Ref::from_schema_name(name))).build(),
            );
            if matches!(spec.method, Verb::Get | Verb::Put) {
                good = good.header("ETag", HeaderBuilder::new().schema(Some(text_schema())).build());
            }
        }
        let problem = describe_schema::<gon_api::Problem>(&mut self.schemas);
        operation = operation.response(spec.status.to_string(), good).response(
            "default",
            ResponseBuilder::new().description("Why not.").content(
                "application/problem+json",
                ContentBuilder::new().schema(Some(Ref::from_schema_name(problem))).build(),
            ),
        );
        if let Some(action) = action {
            operation = operation
                .description(Some(format!("Action `{}`.", action.name())))
                .security(SecurityRequirement::new("bearer", Vec::<String>::new()));
        } else {
            // An empty list lifts the requirement.
            operation = operation.securities(Some(Vec::<SecurityRequirement>::new()));
        }
        self.paths.add_path_operation(&path, vec![spec.method.openapi()], operation.build());
        self.infos.push(RouteInfo { method: spec.method.http(), path: path.clone(), action });
        path
    }
}

fn names_in(path: &'static str) -> Vec<&'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
}

/// The id of a request; the middleware has put it there.
pub fn request_id(extensions: &axum::http::Extensions) -> String {
    extensions.get::<RequestId>().map(|id| id.0.to_string()).unwrap_or_default()
}

fn peer(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<gon_tls::Peer>().map(|peer| peer.address.ip())
}

struct Call {
    cx: Cx,
    parts: Parts,
    values: Vec<String>,
    body: Bytes,
}

/// The door: who asks, whether he may, and what he sent.
async fn enter(app: AppState, action: Action, status: u16, mut parts: Parts, body: Body) -> Result<Call> {
    let user = authenticate(&app, &parts.headers).await?;
    let role = if user.role == "admin" { Role::Admin } else { Role::Member };
    let actor = Actor { user: user.id, account: user.account_id, role };
    authorize(&actor, action, object_of(action, actor.account)).map_err(|denied| match denied {
        Denied::Role => Refusal::new(Kind::Denied, "UnauthorizedOperation", "your role does not allow this"),
        Denied::NotYours => Refusal::new(Kind::NotFound, "InvalidAction", "there is no such thing"),
    })?;
    let values = match RawPathParams::from_request_parts(&mut parts, &()).await {
        Ok(values) => values.iter().map(|(_, value)| value.to_owned()).collect(),
        Err(_) => {
            return Err(
                Refusal::new(Kind::Invalid, "InvalidParameterValue", "the path is not UTF-8").field("id")
            );
        }
    };
    let body = gon_store::aside(read_body(&parts.headers, body)).await?;
    let author = Author {
        account: actor.account,
        user: actor.user,
        name: user.username.clone(),
        request_id: request_id(&parts.extensions),
        source_ip: peer(&parts),
    };
    let idempotency = idempotency_key(&parts, &body, status)?;
    let unless_changed_since = if parts.method == Method::PUT { if_match(&parts.headers)? } else { None };
    Ok(Call { cx: Cx { app, actor, author, idempotency, unless_changed_since }, parts, values, body })
}

fn idempotency_key(parts: &Parts, body: &[u8], status: u16) -> Result<Option<IdempotencyKey>> {
    if parts.method != Method::POST {
        return Ok(None);
    }
    let Some(value) = parts.headers.get("idempotency-key") else { return Ok(None) };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=64).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()))
        .ok_or_else(|| Refusal::invalid("Idempotency-Key", "must be 1 to 64 printable ASCII characters"))?;
    let mut hash = Sha256::new();
    hash.update(parts.uri.path().as_bytes());
    hash.update([0]);
    hash.update(body);
    Ok(Some(IdempotencyKey { key: key.to_owned(), request_sha256: hash.finalize().into(), status }))
}

/// The answer already given for this key, if one was.
async fn replay(cx: &Cx) -> Result<Option<Response>> {
    let Some(key) = &cx.idempotency else { return Ok(None) };
    let mut conn = cx.conn().await?;
    let Some(row) = gon_store::idempotency::find(&mut conn, cx.account(), &key.key).await? else {
        return Ok(None);
    };
    if row.request_sha256 != key.request_sha256 {
        return Err(Refusal::conflict(
            "IdempotentParameterMismatch",
            "this Idempotency-Key came with another request before",
        )
        .field("Idempotency-Key"));
    }
    let mut response = json_response(row.status.unsigned_abs(), serde_json::to_vec(&row.response).ok())?;
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    Ok(Some(response))
}

fn answered<R: Resource>(status: u16, answer: &R) -> Result<Response> {
    if status == 204 {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let mut response = json_response(status, serde_json::to_vec(answer).ok())?;
    if let Some(value) = answer.version().and_then(|at| HeaderValue::from_str(&etag(at)).ok()) {
        response.headers_mut().insert(header::ETAG, value);
    }
    Ok(response)
}

fn json_response(status: u16, body: Option<Vec<u8>>) -> Result<Response> {
    let body = body.ok_or_else(|| Refusal::internal("an answer is not JSON"))?;
    let mut response = Response::new(if status == 204 { Body::empty() } else { Body::from(body) });
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    if status != 204 {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(response)
}
