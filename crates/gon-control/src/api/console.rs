//! The web console: files built from `console/`, inside the binary. Whatever is not a file is the console's own path,
//! and gets its page.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../../console/dist"]
struct Files;

/// Shown where the binary was built without the console.
const PLACEHOLDER: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Gon Cloud Platform</title>\
<p>This binary was built without the web console. Build <code>console/</code>, then build again. \
The API is at <a href=\"/openapi.json\">/api/v1</a>.";

/// Scripts only from here; Ant Design writes its styles into the page.
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
font-src 'self' data:; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; form-action 'self'; \
frame-ancestors 'none'";

/// Answers a path that is not the API's.
pub fn serve(method: &Method, uri: &Uri, headers: &HeaderMap) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = uri.path().trim_start_matches('/');
    let (name, file) = match Files::get(path).filter(|_| !path.is_empty()) {
        Some(file) => (path, Some(file)),
        // A file that is not there is not a page: a stale page asking for an old script must not get HTML.
        None if path.starts_with("assets/") => return StatusCode::NOT_FOUND.into_response(),
        None => ("index.html", Files::get("index.html")),
    };
    let (body, tag) = match file {
        Some(file) => {
            let hash = file.metadata.sha256_hash();
            let tag: String = hash[..12].iter().map(|b| format!("{b:02x}")).collect();
            (file.data, format!("\"{tag}\""))
        }
        None => (PLACEHOLDER.as_bytes().into(), "\"placeholder\"".to_owned()),
    };
    let mut response = if headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(body.into_owned()))
    };
    let out = response.headers_mut();
    let kind = mime_guess::from_path(name).first_or_octet_stream();
    let kind = if kind.type_() == mime_guess::mime::TEXT {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_string()
    };
    for (header, value) in [
        (header::CONTENT_TYPE, kind.as_str()),
        (header::ETAG, tag.as_str()),
        // The build names assets after their content.
        (
            header::CACHE_CONTROL,
            if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" },
        ),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            out.insert(header, value);
        }
    }
    response
}
