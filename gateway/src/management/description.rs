//! What the management API says of itself: an OpenAPI description, made of what each route says beside its code.
//!
//! A route and its description are added by one call, so that neither is there without the other.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};

const ABOUT: &str = "Management API of a Shoal gateway. Its callers show a token that has the scope of the route, as \
    `Authorization: Bearer shoal_...`. Refusals are `{\"message\": ...}`, and `{\"errors\": ...}` where a body or query is \
    wrong.";

/// The description as it is before any route is added.
pub(super) fn begun() -> OpenApi {
    let info =
        InfoBuilder::new().title("Shoal gateway").version(env!("CARGO_PKG_VERSION")).description(Some(ABOUT));
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new().security_scheme("token", token).build();
    OpenApiBuilder::new().info(info.build()).components(Some(components)).build()
}
