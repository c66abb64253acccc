//! Everything the API server answers.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::FutureExt;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tracing::Instrument as _;
use uuid::Uuid;

use super::error::ApiError;
use super::metrics::{RequestLabels, RouteLabels};
use super::route::{RequestId, Routes, request_id};
use super::state::AppState;
use super::{
    addresses, auth, console, images, instances, internet_gateways, key_pairs, network_acls,
    network_interfaces, nodes, openapi, operations, prefix_lists, route_tables, security_groups, subnets,
    trace, vpcs, ws,
};
use crate::documents::lock;
use crate::service::{Kind, Refusal};

/// Every route below `/api/v1` but the WebSocket, with its documentation.
#[must_use]
pub fn routes() -> Routes {
    let mut routes = Routes::default();
    auth::register(&mut routes);
    vpcs::register(&mut routes);
    subnets::register(&mut routes);
    route_tables::register(&mut routes);
    internet_gateways::register(&mut routes);
    network_acls::register(&mut routes);
    security_groups::register(&mut routes);
    prefix_lists::register(&mut routes);
    instances::register(&mut routes);
    network_interfaces::register(&mut routes);
    addresses::register(&mut routes);
    key_pairs::register(&mut routes);
    images::register(&mut routes);
    nodes::register(&mut routes);
    operations::register(&mut routes);
    trace::register(&mut routes);
    routes
}

/// The whole of it.
pub fn router(app: AppState) -> Router {
    let routes = routes();
    let api = routes.router.clone();
    // The same for every router of the process.
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document =
        DOCUMENT.get_or_init(|| Bytes::from(openapi::build(routes).to_json().unwrap_or_default())).clone();
    api.route("/api/v1/ws", get(ws::open))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route(
            "/openapi.json",
            get(move || async move { ([(header::CONTENT_TYPE, "application/json")], document) }),
        )
        .method_not_allowed_fallback(wrong_method)
        .fallback(nowhere)
        .layer(
            CompressionLayer::new().gzip(true).compress_when(
                SizeAbove::new(4096).and(NotForContentType::IMAGES).and(NotForContentType::SSE),
            ),
        )
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app)
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Around every request: its name, a place among those in work, a net under it, the books, the headers.
async fn around(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let hex = Uuid::now_v7().simple().to_string();
    let id: Arc<str> = format!("req-{}", &hex[hex.len() - 17..]).into();
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|p| p.as_str().to_owned());
    let is_api = request.uri().path().starts_with("/api/");
    // Whatever is logged on its behalf can be found by its name.
    let span = tracing::info_span!("request", request_id = &*id);
    let mut response = match app.in_flight.try_acquire() {
        Ok(_place) => {
            app.metrics.in_flight.inc();
            let answer = gon_store::patiently(next.run(request));
            let answer = AssertUnwindSafe(answer).catch_unwind().instrument(span).await;
            app.metrics.in_flight.dec();
            answer.unwrap_or_else(|_| {
                app.metrics.panics.inc();
                ApiError::new(Refusal::internal("a request panicked"), &*id).into_response()
            })
        }
        Err(_) => {
            let mut refusal =
                Refusal::new(Kind::Unavailable, "RequestLimitExceeded", "too many requests in work");
            refusal.retry_after = Some(1);
            ApiError::new(refusal, &*id).into_response()
        }
    };
    let status = response.status().as_u16();
    let route = route.unwrap_or_else(|| "none".to_owned());
    // Anybody can invent methods; the books have no room for all of them.
    let method = match method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE | Method::OPTIONS => {
            method.as_str()
        }
        _ => "other",
    }
    .to_owned();
    tracing::debug!(
        request_id = &*id,
        method,
        route,
        status,
        micros = begin.elapsed().as_micros(),
        "answered"
    );
    let labels = RouteLabels { method: method.clone(), route: route.clone() };
    app.metrics.latency.get_or_create(&labels).observe(begin.elapsed().as_secs_f64());
    app.metrics.requests.get_or_create(&RequestLabels { method, route, status }).inc();

    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if is_api {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        );
    }
    response
}

async fn wrong_method(request: Request) -> Response {
    let refusal = Refusal::new(
        Kind::NoSuchMethod,
        "UnsupportedOperation",
        format!("{} is not for this path", request.method().as_str().chars().take(20).collect::<String>()),
    );
    ApiError::new(refusal, request_id(request.extensions())).into_response()
}

async fn nowhere(request: Request) -> Response {
    if request.uri().path().starts_with("/api/") || *request.method() == Method::OPTIONS {
        let refusal = Refusal::new(Kind::NotFound, "InvalidAction", "the API has no such path");
        return ApiError::new(refusal, request_id(request.extensions())).into_response();
    }
    console::serve(request.method(), request.uri(), request.headers())
}

async fn readyz(State(app): State<AppState>) -> Response {
    match app.store.ping().await {
        Ok(()) => "ready\n".into_response(),
        Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: the database does not answer\n").into_response()
        }
    }
}

async fn metrics(State(app): State<AppState>) -> Response {
    let (size, idle) = app.store.connections();
    app.metrics.pool_size.set(i64::from(size));
    app.metrics.pool_idle.set(i64::try_from(idle).unwrap_or(i64::MAX));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &lock(&app.registry)) {
        Ok(()) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                .into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
