//! `/openapi.json`: what the registered routes say of themselves.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};

use super::route::Routes;
use super::router::routes;

/// The document, as it is checked in: sorted, indented, with a line feed at the end.
///
/// # Errors
/// Only if it cannot be written as JSON, which no document of ours can bring about.
pub fn document() -> Result<String, serde_json::Error> {
    let mut text = build(routes()).to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

/// The document of these routes.
#[must_use]
pub fn build(routes: Routes) -> OpenApi {
    let mut components = Components::new();
    components.schemas.extend(routes.schemas);
    components.add_security_scheme(
        "bearer",
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build()),
    );
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Gon Cloud Platform")
                .version("1")
                .description(Some(
                    "VPC networks, instances, security groups. Every answer that is not 2xx is a problem \
                     (RFC 9457) with EC2's code. Lists are newest first.",
                ))
                .license(Some(
                    LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build(),
                ))
                .build(),
        )
        .paths(routes.paths)
        .components(Some(components))
        .build()
}
