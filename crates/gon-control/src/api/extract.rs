//! From the bytes of a request to typed values, or a refusal that names the field.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Query;
use axum::http::{HeaderMap, Uri, header};
use bytes::Bytes;
use gon_types::Resource;
use gon_types::id::IdRef;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{ObjectBuilder, RefOr};
use utoipa::{IntoParams, ToSchema};

use crate::service::{Kind, Refusal, Result};

/// No body is larger.
pub const MAX_BODY: usize = 1 << 20;
/// A whole body must be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads the body.
pub async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes> {
    let too_large = || {
        Refusal::new(
            Kind::TooLarge,
            "RequestEntityTooLarge",
            format!("the body is larger than {MAX_BODY} bytes"),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|n| n > MAX_BODY) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            use std::error::Error as _;
            if error.source().is_some_and(|s| s.is::<http_body_util::LengthLimitError>()) {
                Err(too_large())
            } else {
                Err(Refusal::new(Kind::Invalid, "InvalidRequest", "the body ended before it was whole"))
            }
        }
        Err(_) => Err(Refusal::new(Kind::Invalid, "RequestExpired", "the body did not come in time")),
    }
}

/// What a call takes as its body.
pub trait Payload: Clone + Send + Sync + Sized + 'static {
    /// Reads it.
    fn parse(headers: &HeaderMap, bytes: &[u8]) -> Result<Self>;
    /// Its name and schema for the OpenAPI document, and whether it must be there.
    fn describe(schemas: &mut Vec<(String, RefOr<Schema>)>) -> Option<(String, bool)>;
}

/// No body, or an empty object.
impl Payload for () {
    fn parse(headers: &HeaderMap, bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(());
        }
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        json::<Nothing>(headers, bytes).map(|_| ())
    }
    fn describe(_: &mut Vec<(String, RefOr<Schema>)>) -> Option<(String, bool)> {
        None
    }
}

/// A JSON body.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + ToSchema + Clone + Send + Sync + 'static> Payload for Json<T> {
    fn parse(headers: &HeaderMap, bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Refusal::new(Kind::Invalid, "MissingParameter", "a JSON body is required"));
        }
        json(headers, bytes).map(Self)
    }
    fn describe(schemas: &mut Vec<(String, RefOr<Schema>)>) -> Option<(String, bool)> {
        Some((describe_schema::<T>(schemas), true))
    }
}

/// A JSON body that may be left out.
#[derive(Debug, Clone)]
pub struct Optional<T>(pub T);

impl<T: DeserializeOwned + ToSchema + Default + Clone + Send + Sync + 'static> Payload for Optional<T> {
    fn parse(headers: &HeaderMap, bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() { Ok(Self(T::default())) } else { json(headers, bytes).map(Self) }
    }
    fn describe(schemas: &mut Vec<(String, RefOr<Schema>)>) -> Option<(String, bool)> {
        Some((describe_schema::<T>(schemas), false))
    }
}

/// Adds a schema and all it refers to; returns its name.
pub fn describe_schema<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) -> String {
    let name = T::name().into_owned();
    T::schemas(schemas);
    schemas.push((name.clone(), T::schema()));
    name
}

fn json<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T> {
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        let is_json = kind.to_str().is_ok_and(|k| {
            k.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json"))
        });
        if !is_json {
            return Err(Refusal::new(Kind::NotJson, "InvalidRequest", "the body must be application/json"));
        }
    }
    // serde would take a list for an object, by position.
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Refusal::new(Kind::Invalid, "InvalidRequest", "the body must be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize::<_, T>(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            field_error(&path, &inner.to_string())
        } else {
            Refusal::new(Kind::Invalid, "InvalidRequest", format!("the body is not JSON: {inner}"))
        }
    })?;
    deserializer
        .end()
        .map_err(|_| Refusal::new(Kind::Invalid, "InvalidRequest", "something follows the JSON body"))?;
    Ok(value)
}

/// serde's words for a wrong field, in EC2's.
fn field_error(path: &str, message: &str) -> Refusal {
    // "…at line 1 column 2" helps nobody who is told the field.
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let quoted = || message.split('`').nth(1).unwrap_or_default().to_owned();
    let beneath = |name: String| if path == "." { name } else { format!("{path}.{name}") };
    let shorten = |text: &str| text.chars().take(100).collect::<String>();
    if message.starts_with("missing field") {
        Refusal::missing(beneath(quoted()))
    } else if message.starts_with("unknown field") {
        let name = shorten(&quoted());
        // The path names the unknown field already when serde got that far.
        let field = if path == "." || path.ends_with(&name) {
            shorten(if path == "." { &name } else { path })
        } else {
            beneath(name)
        };
        Refusal::of_field("UnknownParameter", field.clone(), format!("there is no field {field} here"))
    } else if path == "." && message.starts_with("duplicate field") {
        Refusal::invalid(shorten(&quoted()), "is given twice")
    } else if path == "." {
        let message = shorten(message);
        Refusal::new(Kind::Invalid, "InvalidParameterValue", message)
    } else {
        Refusal::invalid(shorten(path), shorten(message))
    }
}

/// What a call takes from the query.
pub fn query<Q: DeserializeOwned + IntoParams>(uri: &Uri) -> Result<Q> {
    // PostgreSQL's text has no NUL, so nothing has it in its name.
    let nul = uri.query().unwrap_or_default().split('&').find(|pair| pair.contains("%00"));
    if let Some((name, _)) = nul.and_then(|pair| pair.split_once('=')) {
        return Err(Refusal::invalid(name.chars().take(100).collect::<String>(), "must not contain NUL"));
    }
    match Query::<Q>::try_from_uri(uri) {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => {
            let text = rejection.body_text();
            let message = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            // The path comes first ("limit: …") where serde got that far.
            let (path, message) = match message.split_once(": ") {
                Some((path, rest)) if !path.contains(' ') => (path, rest),
                _ => (".", message),
            };
            Err(field_error(path, message))
        }
    }
}

/// What a call takes from the path, in order.
pub trait PathArgs: Clone + Send + Sync + Sized + 'static {
    /// Reads the values of `{…}`.
    fn parse(names: &[&'static str], values: &[String]) -> Result<Self>;
}
impl PathArgs for () {
    fn parse(_: &[&'static str], _: &[String]) -> Result<Self> {
        Ok(())
    }
}

fn path_id<R: Resource>(names: &[&'static str], values: &[String], at: usize) -> Result<IdRef<R>> {
    let text = values.get(at).map_or("", String::as_str);
    let field = names.get(at).copied().unwrap_or("id");
    text.parse::<IdRef<R>>().map_err(|error| Refusal::from(error).field(field))
}

impl<A: Resource> PathArgs for One<A> {
    fn parse(names: &[&'static str], values: &[String]) -> Result<Self> {
        Ok(Self(path_id(names, values, 0)?))
    }
}
impl<A: Resource, B: Resource> PathArgs for Two<A, B> {
    fn parse(names: &[&'static str], values: &[String]) -> Result<Self> {
        Ok(Self(path_id(names, values, 0)?, path_id(names, values, 1)?))
    }
}

/// One id in the path.
#[derive(Debug)]
pub struct One<A: Resource>(pub IdRef<A>);
/// Two ids in the path.
#[derive(Debug)]
pub struct Two<A: Resource, B: Resource>(pub IdRef<A>, pub IdRef<B>);

fn copy<R: Resource>(id: &IdRef<R>) -> IdRef<R> {
    match id {
        IdRef::Whole(id) => IdRef::Whole(*id),
        IdRef::Short(short) => IdRef::Short(short.clone()),
    }
}
impl<A: Resource> Clone for One<A> {
    fn clone(&self) -> Self {
        Self(copy(&self.0))
    }
}
impl<A: Resource, B: Resource> Clone for Two<A, B> {
    fn clone(&self) -> Self {
        Self(copy(&self.0), copy(&self.1))
    }
}

/// The entity tag of something that last changed then.
#[must_use]
pub fn etag(changed_at: OffsetDateTime) -> String {
    format!("\"{:x}\"", changed_at.unix_timestamp_nanos() / 1000)
}

/// When something last changed, from `If-Match`; `*` and no header at all mean "whenever".
pub fn if_match(headers: &HeaderMap) -> Result<Option<OffsetDateTime>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let bad = || Refusal::invalid("If-Match", "must be the ETag of an answer, or *");
    let text = value.to_str().map_err(|_| bad())?.trim();
    if text == "*" {
        return Ok(None);
    }
    let hex = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(bad)?;
    if hex.is_empty() || hex.len() > 16 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let micros = i128::from_str_radix(hex, 16).map_err(|_| bad())?;
    OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).map(Some).map_err(|_| bad())
}

/// The schema of a path parameter.
pub fn text_schema() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(utoipa::openapi::schema::Type::String).build().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gon_api::instances::LaunchInstance;
    use gon_api::vpcs::{CreateVpc, ListVpcs};
    use proptest::prelude::*;

    fn body<T: DeserializeOwned>(text: &str) -> Refusal {
        match json::<T>(&HeaderMap::new(), text.as_bytes()) {
            Ok(_) => panic!("{text} was taken"),
            Err(refusal) => refusal,
        }
    }

    #[test]
    fn a_wrong_body_names_the_field() {
        for (text, code, field) in [
            ("{}", "MissingParameter", Some("name")),
            (r#"{"name":"a"}"#, "MissingParameter", Some("cidr_block")),
            (r#"{"name":1,"cidr_block":"x"}"#, "InvalidParameterValue", Some("name")),
            (r#"{"name":"a","cidr_block":null}"#, "InvalidParameterValue", Some("cidr_block")),
            (r#"{"name":"a","cidr_block":"x","state":"available"}"#, "UnknownParameter", Some("state")),
            (r#"{"name":"a","name":"b","cidr_block":"x"}"#, "InvalidParameterValue", Some("name")),
            ("[]", "InvalidRequest", None),
            (r#"["a","10.0.0.0/16"]"#, "InvalidRequest", None),
            ("{", "InvalidRequest", None),
            ("{} {}", "MissingParameter", Some("name")),
            ("\u{0}", "InvalidRequest", None),
        ] {
            let refusal = body::<CreateVpc>(text);
            assert_eq!((&*refusal.code, refusal.field.as_deref()), (code, field), "{text}: {refusal:?}");
        }
        let refusal = body::<LaunchInstance>(
            r#"{"name":"a","image_id":"x","instance_type":"y","security_group_ids":[1]}"#,
        );
        assert_eq!(refusal.field.as_deref(), Some("security_group_ids[0]"));
    }

    #[test]
    fn a_wrong_query_names_the_field() {
        let uri: Uri = "/vpcs?colour=red".parse().unwrap();
        let refusal = query::<ListVpcs>(&uri).unwrap_err();
        assert_eq!((&*refusal.code, refusal.field.as_deref()), ("UnknownParameter", Some("colour")));
        let uri: Uri = "/vpcs?limit=1&limit=2".parse().unwrap();
        assert_eq!(query::<ListVpcs>(&uri).unwrap_err().field.as_deref(), Some("limit"));
    }

    #[test]
    fn entity_tags_read_back() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_000).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, etag(at).parse().unwrap());
        assert_eq!(if_match(&headers).unwrap(), Some(at));
        for bad in ["x", "\"\"", "W/\"1\"", "\"xyz\"", "\"ffffffffffffffff\"", "\"1\", \"2\""] {
            headers.insert(header::IF_MATCH, bad.parse().unwrap());
            assert!(if_match(&headers).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(text in ".{0,200}") {
            let _ = json::<LaunchInstance>(&HeaderMap::new(), text.as_bytes());
        }
    }
}
