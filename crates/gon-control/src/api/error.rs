//! From a refusal to an answer: the only place where HTTP statuses are given out.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gon_api::Problem;

use crate::service::{Kind, Refusal};

/// A refusal on its way out.
#[derive(Debug)]
pub struct ApiError {
    refusal: Refusal,
    request_id: String,
}

const fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Changed => StatusCode::PRECONDITION_FAILED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::NoSuchMethod => StatusCode::METHOD_NOT_ALLOWED,
        Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable | Kind::Retry => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl ApiError {
    /// A refusal, with the id of the request it answers.
    #[must_use]
    pub fn new(refusal: Refusal, request_id: impl Into<String>) -> Self {
        Self { refusal, request_id: request_id.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { refusal, request_id } = self;
        let status = status_of(refusal.kind);
        if status.is_server_error() {
            match &refusal.cause {
                Some(cause) => tracing::error!(
                    request_id,
                    code = &*refusal.code,
                    error = cause.as_ref() as &dyn std::error::Error,
                    "a request failed"
                ),
                None => tracing::error!(
                    request_id,
                    code = &*refusal.code,
                    detail = refusal.detail,
                    "a request failed"
                ),
            }
        }
        let problem = Problem {
            r#type: format!("urn:gon:problem:{}", refusal.code),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: refusal.code.into_owned(),
            detail: refusal.detail,
            field: refusal.field.map(Into::into),
            request_id,
            blockers: refusal.blockers,
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = refusal.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
