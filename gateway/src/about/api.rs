//! `/api/v1/settings` and `/api/v1/certificates`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use serde::Serialize;
use shoal_identity::ShownCertificate;
use shoal_ops::settings::InForce;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{About, Purpose};
use crate::management::{Guarded, Scope};
use crate::timestamp::Timestamp;

/// The settings that count.
#[derive(Serialize, ToSchema)]
#[schema(as = Settings)]
struct SettingsView {
    /// By key.
    settings: Vec<SettingView>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Setting)]
struct SettingView {
    /// Its path, as `download.pieceSize` or `registries[0].url`.
    key: String,
    /// As it was written, with `${NAME}` for what the environment says and `…` for a secret.
    value: String,
    /// Whether nobody has said otherwise.
    is_default: bool,
}

/// The certificates that this gateway shows to others.
#[derive(Serialize, ToSchema)]
#[schema(as = Certificates)]
struct CertificatesView {
    certificates: Vec<CertificateView>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Certificate)]
struct CertificateView {
    /// What it is there for: `own` to nodes and other gateways, `management` to callers of this API, `authority` as the
    /// region's root.
    r#use: &'static str,
    subject: String,
    issuer: String,
    #[schema(value_type = String, format = DateTime)]
    not_before: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    not_after: Timestamp,
}

impl From<&InForce> for SettingView {
    fn from(InForce { key, text, is_default }: &InForce) -> Self {
        Self { key: key.clone(), value: text.clone(), is_default: *is_default }
    }
}

impl From<(Purpose, ShownCertificate)> for CertificateView {
    fn from((purpose, it): (Purpose, ShownCertificate)) -> Self {
        Self {
            r#use: purpose.as_str(),
            subject: it.subject,
            issuer: it.issuer,
            not_before: Timestamp::of(it.validity.from),
            not_after: Timestamp::of(it.validity.until),
        }
    }
}

/// The routes, for those who may look.
pub(crate) fn routes(about: About) -> Guarded {
    let routes = OpenApiRouter::new().routes(routes!(settings)).routes(routes!(certificates));
    Guarded::by_token(Scope::Read, routes.with_state(Arc::new(about)))
}

/// The settings that this gateway goes by, without secrets.
#[utoipa::path(get, path = "/api/v1/settings", tag = "gateway", security(("token" = [])), responses((status = 200, description = "all settings", body = SettingsView)))]
async fn settings(Shared(about): Shared<Arc<About>>) -> Json<SettingsView> {
    Json(SettingsView { settings: about.settings.iter().map(Into::into).collect() })
}

/// The certificates that this gateway shows to others.
#[utoipa::path(get, path = "/api/v1/certificates", tag = "gateway", security(("token" = [])), responses((status = 200, description = "all certificates; none where nothing is secured", body = CertificatesView)))]
async fn certificates(Shared(about): Shared<Arc<About>>) -> Json<CertificatesView> {
    Json(CertificatesView { certificates: about.certificates().await.into_iter().map(Into::into).collect() })
}
