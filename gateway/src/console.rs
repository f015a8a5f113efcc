//! The console: pages for people, which show what the management API tells and start what it starts.
//!
//! They are plain files that are built in. Nobody has to show a token for them, since there is nothing in them; whoever
//! opens them gives them one, which they send along with each call of the API and keep as long as the tab. A browser sends
//! it along by itself to nobody, so that no other site can have it call anything.
//!
//! Knows nothing of: what the pages show.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

/// Where the pages are.
const PATH: &str = "/console/";

/// Nothing but these files is loaded, nobody else is asked for anything, no text becomes markup or script, and no other
/// site shows the pages within its own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// A file by its name.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../console/", $name)))),*]
    };
}

/// What whoever comes without a name finds.
const INDEX: (&str, &str) = ("index.html", include_str!("../console/index.html"));
const FILES: [(&str, &str); 22] = files![
    "api.js",
    "app.css",
    "app.js",
    "audit.js",
    "certificates.js",
    "dom.js",
    "downloads.js",
    "favicon.svg",
    "fleet.js",
    "format.js",
    "graph.js",
    "index.html",
    "map.js",
    "page.js",
    "parts.js",
    "preheat-form.js",
    "preheat.js",
    "route.js",
    "savings.js",
    "settings.js",
    "swarm.js",
    "tasks.js",
];

/// The pages, and the way to them.
pub(crate) fn router() -> Router {
    let files = FILES.into_iter().fold(Router::new(), |router, (name, content)| {
        router.route(&format!("{PATH}{name}"), get(async move || file(name, content)))
    });
    let to_index = || get(async || Redirect::temporary(PATH));
    files
        .route(PATH, get(async || file(INDEX.0, INDEX.1)))
        .route("/", to_index())
        .route("/console", to_index())
}

fn file(name: &str, content: &'static str) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, kind(name)),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // Another gateway behind the same name may be of another version.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    use http::{Request, StatusCode};
    use tower::ServiceExt as _;

    async fn answer(path: &str) -> Response {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        router().oneshot(request).await.unwrap()
    }

    #[test]
    fn every_file_is_built_in_and_of_a_known_kind() {
        let dir = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("console")).unwrap();
        let there: BTreeSet<_> = dir.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        let built_in: BTreeSet<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there, built_in);
        assert!(FILES.iter().all(|(name, _)| kind(name) != "application/octet-stream"));
    }

    #[test]
    fn no_file_asks_another_host_or_needs_what_the_policy_forbids() {
        for (name, content) in FILES {
            let forbidden = [
                "innerHTML",
                "outerHTML",
                "insertAdjacent",
                "document.write",
                "eval(",
                " style=\"",
                "cookie",
                "localStorage",
            ];
            for it in forbidden {
                assert!(!content.contains(it), "{name}: {it}");
            }
            let urls = content.match_indices("://").filter(|(at, _)| {
                !content[..*at].ends_with("http") || !content[*at..].starts_with("://www.w3.org/")
            });
            let urls: Vec<_> =
                urls.map(|(at, _)| &content[at.saturating_sub(8)..(at + 12).min(content.len())]).collect();
            assert!(urls.is_empty(), "{name}: {urls:?}");
        }
    }

    #[tokio::test]
    async fn whoever_comes_without_a_path_finds_the_pages() {
        for path in ["/", "/console"] {
            assert_eq!(answer(path).await.headers()["location"], PATH);
        }
        for path in ["/console/", "/console/index.html"] {
            let answer = answer(path).await;
            assert_eq!(answer.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
            assert!(
                answer.headers()[CONTENT_SECURITY_POLICY]
                    .to_str()
                    .unwrap()
                    .starts_with("default-src 'none';")
            );
        }
        assert_eq!(answer("/console/none.js").await.status(), StatusCode::NOT_FOUND);
    }
}
