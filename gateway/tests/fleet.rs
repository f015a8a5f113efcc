//! What a gateway without schedulers shows and removes of its region: what it has itself.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[allow(dead_code, reason = "it serves several tests, and each needs a part of it")]
mod support;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_proto::OpenedBlob;
use support::gateway::{Gateway, NAME, REPOSITORY};
use support::registry::Registry;
use support::{content, digest};

const OTHER: &str = "prod/other";
const KIND: &str = "kind: distribution";

/// A gateway before a registry that has this content.
async fn world(all: &[&[u8]]) -> (Registry, Gateway) {
    let registry = Registry::open().await;
    for content in all {
        registry.put_blob(REPOSITORY, content);
        registry.put_blob(OTHER, content);
    }
    let gateway = Gateway::start(&registry, KIND).await;
    (registry, gateway)
}

/// Has the gateway hold what it opens for this repository.
async fn held(gateway: &Gateway, repository: &str, content: &[u8]) -> OpenedBlob {
    let blob = gateway.open_from("node-1", (NAME, repository), content, None).await.unwrap();
    assert!(gateway.follow(&blob).await);
    blob
}

async fn seen(gateway: &Gateway, path: &str) -> (StatusCode, Value) {
    gateway.manage(Method::GET, path, None, &Value::Null).await
}

fn id(content: &[u8]) -> String {
    format!("{NAME}@{}", digest(content))
}

#[tokio::test]
async fn a_task_is_shown_by_what_the_gateway_has_seen_of_it() {
    let (layers, size) = ([content(1, 200_000), content(2, 100_000)], 200_000);
    let (_registry, gateway) = world(&[&layers[0], &layers[1]]).await;
    let blob = held(&gateway, REPOSITORY, &layers[0]).await;
    assert_eq!(gateway.fetch(&blob).await.unwrap(), layers[0]);
    held(&gateway, OTHER, &layers[1]).await;

    let (status, task) = seen(&gateway, &format!("/tasks/{}", id(&layers[0]))).await;
    assert_eq!(status, StatusCode::OK, "{task}");
    let expected = json!({
        "id": id(&layers[0]),
        "trustGroup": NAME,
        "digest": digest(&layers[0]).to_string(),
        "state": "COMPLETE",
        "contentLength": size,
        "pieceLength": 64 << 10,
        "pieces": 4,
        "nodes": { "whole": 1, "part": 0, "wanting": 0 },
        "gateway": "gateway-1",
        "sources": [{ "registry": NAME, "repository": REPOSITORY }],
        "moreSources": false,
        "seed": null,
        "traffic": { "registry": size, "hub": 0, "peers": 0, "sent": size },
    });
    assert_eq!(task, expected);

    let check = async |query: &str, expected: &[&[u8]]| {
        let (status, page) = seen(&gateway, &format!("/tasks{query}")).await;
        assert_eq!((status, &page["incomplete"]), (StatusCode::OK, &json!([])), "{page}");
        let mut expected: Vec<_> = expected.iter().map(|it| json!(id(it))).collect();
        expected.sort_by_key(ToString::to_string);
        let ids: Vec<_> = page["tasks"].as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
        assert_eq!(ids, expected, "{query}");
        page["next"].clone()
    };
    let both = [&layers[0][..], &layers[1]];
    assert_eq!(check("", &both).await, Value::Null);
    check(&format!("?registry={NAME}"), &both).await;
    check(&format!("?registry={NAME}&repository={OTHER}"), &[&layers[1]]).await;
    check(&format!("?digest={}", digest(&layers[0])), &[&layers[0]]).await;
    check("?state=PARTIAL", &[]).await;
    let mut ordered = both;
    ordered.sort_by_key(|it| digest(it));
    let next = check("?per_page=1", &ordered[..1]).await;
    assert_eq!(next, json!(id(ordered[0])));
    check(&format!("?per_page=1&after={}", id(ordered[0])), &ordered[1..]).await;

    for (path, expected) in [
        (format!("/tasks/{}", id(b"nowhere")), StatusCode::NOT_FOUND),
        ("/tasks/x".to_owned(), StatusCode::NOT_FOUND),
        ("/tasks?page=2".to_owned(), StatusCode::UNPROCESSABLE_ENTITY),
        ("/tasks?registry=b.example".to_owned(), StatusCode::UNPROCESSABLE_ENTITY),
        ("/nodes?rack=r".to_owned(), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        assert_eq!(seen(&gateway, &path).await.0, expected, "{path}");
    }
    let nobody = json!({ "nodes": [], "next": null, "incomplete": [] });
    assert_eq!(seen(&gateway, "/nodes").await, (StatusCode::OK, nobody));
}

#[tokio::test]
async fn what_is_removed_is_read_anew_and_a_seed_at_work_ends() {
    let layer = content(1, 300_000);
    let (registry, gateway) = world(&[&layer]).await;
    held(&gateway, REPOSITORY, &layer).await;
    let remove = async || {
        let path = format!("/tasks/{}", id(&layer));
        gateway.manage(Method::DELETE, &path, None, &Value::Null).await
    };
    let (status, done) = remove().await;
    assert_eq!((status, &done["nodes"]["removed"]), (StatusCode::OK, &json!(1)), "{done}");
    assert_eq!(done["removed"][0]["id"], "gateway-1", "{done}");
    assert_eq!(seen(&gateway, &format!("/tasks/{}", id(&layer))).await.0, StatusCode::NOT_FOUND);
    let (status, done) = remove().await;
    assert_eq!((status, &done["nodes"]["nothing"]), (StatusCode::OK, &json!(1)), "{done}");

    // Nothing of the body comes.
    registry.gate.forget_permits(usize::MAX >> 3);
    let blob = gateway.open(&layer, None).await.unwrap();
    let (came, removed) = tokio::join!(gateway.follow(&blob), async {
        while registry.asked(&Method::GET).len() < 2 {
            tokio::task::yield_now().await;
        }
        remove().await
    });
    assert_eq!((came, removed.0), (false, StatusCode::OK));
    assert_eq!(gateway.metric("outcome=\"removed\""), 1);
    registry.gate.add_permits(10);
    held(&gateway, REPOSITORY, &layer).await;
}

#[tokio::test]
async fn a_purge_forgets_a_repository_and_removes_what_is_its_alone() {
    let [own, shared] = [content(1, 100_000), content(2, 100_000)];
    let (registry, gateway) = world(&[&own, &shared]).await;
    for (repository, content) in [(REPOSITORY, &own), (REPOSITORY, &shared), (OTHER, &shared)] {
        held(&gateway, repository, content).await;
    }
    let n_heads = || registry.asked(&Method::HEAD).len();
    let before = n_heads();
    held(&gateway, REPOSITORY, &shared).await;
    assert_eq!(n_heads(), before, "it is known who may read it");

    let body = json!({ "registry": NAME, "repository": REPOSITORY });
    let purge = async |body: &Value| gateway.manage(Method::POST, "/repositories/purge", None, body).await;
    let (status, done) = purge(&body).await;
    assert_eq!(status, StatusCode::OK, "{done}");
    assert_eq!(done["blobs"], json!({ "own": 1, "shared": 1, "left": 0 }), "{done}");
    let (_, left) = seen(&gateway, "/tasks").await;
    assert_eq!((&left["tasks"][0]["id"], &left["tasks"][1]), (&json!(id(&shared)), &Value::Null), "{left}");
    let source = json!([{ "registry": NAME, "repository": OTHER }]);
    assert_eq!(left["tasks"][0]["sources"], source);

    held(&gateway, OTHER, &shared).await;
    assert_eq!(n_heads(), before, "of another repository nothing is forgotten");
    held(&gateway, REPOSITORY, &shared).await;
    assert_eq!(n_heads(), before + 1, "the registry decides anew");
    let (status, wrong) = purge(&json!({ "registry": "b.example" })).await;
    let errors = json!({ "errors": ["registry is none that this gateway serves", "repository is missing"] });
    assert_eq!((status, wrong), (StatusCode::UNPROCESSABLE_ENTITY, errors));
}

#[tokio::test]
async fn who_may_look_may_not_remove_and_the_other_way_round() {
    let (_registry, gateway) = world(&[]).await;
    let token = async |scope: &str| {
        let body = json!({ "name": scope, "scopes": [scope] });
        let (_, made) = gateway.manage(Method::POST, "/tokens", None, &body).await;
        made["token"].as_str().unwrap().to_owned()
    };
    let task = format!("/tasks/{}", id(b"x"));
    let (purge, body) = ("/repositories/purge", json!({ "registry": NAME, "repository": REPOSITORY }));
    let (look, remove) = (StatusCode::OK, StatusCode::OK);
    for (scope, may_look, may_remove) in
        [("read", true, false), ("delete", false, true), ("preheat", false, false)]
    {
        let token = token(scope).await;
        let call = async |method, path: &str| gateway.manage(method, path, Some(&token), &body).await.0;
        let expected = |may: bool, status| if may { status } else { StatusCode::FORBIDDEN };
        for path in ["/tasks", "/nodes", "/regions"] {
            assert_eq!(call(Method::GET, path).await, expected(may_look, look), "{scope} {path}");
        }
        assert_eq!(call(Method::GET, &task).await, expected(may_look, StatusCode::NOT_FOUND), "{scope}");
        assert_eq!(call(Method::DELETE, &task).await, expected(may_remove, remove), "{scope}");
        assert_eq!(call(Method::POST, purge).await, expected(may_remove, remove), "{scope}");
    }
}

#[tokio::test]
async fn a_region_shows_whether_its_hub_answers() {
    let (_registry, hub) = world(&[]).await;
    assert_eq!(seen(&hub, "/regions").await.1, json!({ "hub": null, "regions": [] }));
    let region = Gateway::start_behind(&hub, KIND).await;
    let (_, shown) = seen(&region, "/regions").await;
    let of_hub = &shown["hub"];
    assert_eq!((&of_hub["region"], &of_hub["registries"]), (&json!("eu"), &json!([NAME])), "{shown}");
    assert_eq!((&of_hub["answers"], &of_hub["gateway"]), (&json!(true), &json!(hub.url)), "{shown}");
    assert!(of_hub["since"].is_string(), "{shown}");
}
