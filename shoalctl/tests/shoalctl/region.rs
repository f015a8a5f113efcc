//! What is asked of a gateway, which answers as it is told to.

use http::header::RETRY_AFTER;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::double::{Double, document};
use crate::{TOKEN, run, run_with};

fn task(digit: char) -> Value {
    let digest = format!("sha256:{}", digit.to_string().repeat(64));
    json!({
        "id": format!("h.example@{digest}"), "trustGroup": "h.example", "digest": digest, "state": "COMPLETE",
        "contentLength": 1024, "pieceLength": 1024, "pieces": 1,
        "nodes": { "whole": 1, "part": 0, "wanting": 0 }, "gateway": "gw-1", "sources": [], "moreSources": false,
        "seed": null, "traffic": null,
    })
}

#[tokio::test]
async fn an_answer_decides_the_exit_code() {
    let message = json!({ "message": "no: cdc is not shown" });
    let table = [
        (200, json!({ "nodes": [], "next": null, "incomplete": [] }), 0, "0 nodes"),
        (401, message.clone(), 4, "--token-file"),
        (403, message.clone(), 4, "scope"),
        (404, message.clone(), 5, "says 404"),
        (422, json!({ "errors": ["zone is wrong", "task is wrong"] }), 2, "zone is wrong; task is wrong"),
        (429, message.clone(), 1, "requestsPerSecond"),
        (500, message.clone(), 3, "says 500"),
        (200, json!("a page"), 3, "something else than its API does"),
        (302, message, 1, "management.listen"),
    ];
    for (status, body, code, part) in table {
        let gateway = Double::always(status, body).await;
        run(&["--gateway", &gateway.url(), "nodes"]).await.ends(code, part);
    }
}

#[tokio::test]
async fn who_is_not_there_is_not_reached() {
    // Bound, and closed again: nobody else gets it so soon.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    for command in [&["status"][..], &["nodes"], &["tasks"], &["task", "x"], &["preheat", "list"]] {
        let args: Vec<_> = ["--gateway", &url].iter().chain(command).copied().collect();
        run(&args).await.ends(3, "is the gateway running");
    }
    run(&["--node", &url, "explain", "h.example/a", "--settings", "/nonexistent"]).await.ends(3, "doctor");
}

#[tokio::test]
async fn the_token_is_sent_and_never_printed() {
    let gateway = Double::always(200, json!({ "nodes": [], "next": null, "incomplete": [] })).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let (file, url) = (file.to_str().unwrap(), gateway.url());
    let nodes = ["--gateway", &url, "nodes"];
    run(&nodes).await.ends(0, "");
    run_with(&nodes, &[("SHOAL_TOKEN_FILE", file)]).await.ends(0, "");
    run_with(&["nodes", "--token-file", file], &[("SHOAL_GATEWAY", &url)]).await.ends(0, "");
    let shown: Vec<_> = gateway.asked.lock().unwrap().iter().map(|it| it.authorization.clone()).collect();
    assert_eq!(shown, vec![Some(format!("Bearer {TOKEN}")); 3]);
    run_with(&nodes, &[]).await.ends(0, "");
    assert_eq!(gateway.asked.lock().unwrap().last().unwrap().authorization, None);

    run(&["--help"]).await.ends(0, "Exit codes");
    run(&["--token-file", "/nonexistent", "nodes"]).await.ends(2, "/nonexistent");
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    run(&["--token-file", empty.to_str().unwrap(), "nodes"]).await.ends(2, "is empty");
    let broken = format!("{TOKEN}\n{TOKEN}");
    run_with(&nodes, &[("SHOAL_TOKEN", &broken)]).await.ends(2, "cannot stand in a header");
}

#[tokio::test]
async fn lists_are_read_page_after_page() {
    let gateway = Double::start(|asked, n_before| match asked.line.as_str() {
        // It is asked too often at first.
        "GET /api/v1/tasks?state=COMPLETE&per_page=100" if n_before == 0 => {
            let mut answer = document(429, &json!({ "message": "rate limit exceeded" }));
            answer.headers_mut().insert(RETRY_AFTER, 1.into());
            answer
        }
        "GET /api/v1/tasks?state=COMPLETE&per_page=100" => {
            document(200, &json!({ "tasks": [task('1')], "next": "h.example@sha256:1", "incomplete": [] }))
        }
        "GET /api/v1/tasks?state=COMPLETE&after=h.example%40sha256%3A1&per_page=100" => {
            let silent = json!({ "scheduler": "https://s:1", "cause": "refused" });
            document(200, &json!({ "tasks": [task('2')], "next": null, "incomplete": [silent] }))
        }
        _ => document(404, &json!({ "message": "task does not exist" })),
    })
    .await;
    let tasks = ["--gateway", &gateway.url(), "tasks", "--state", "COMPLETE"];
    let ran = run(&[&tasks[..], &["-o", "json"]].concat()).await;
    assert_eq!(ran.json()["tasks"], json!([task('1'), task('2')]));
    assert_eq!((ran.code, gateway.lines().len()), (0, 3));
    let ran = run(&tasks).await;
    ran.ends(0, "2 tasks");
    ran.ends(0, "no answer of scheduler https://s:1: refused");
    run(&["--gateway", &gateway.url(), "task", "h.example@sha256:3"]).await.ends(5, "does not exist");
    assert_eq!(gateway.lines().last().unwrap(), "GET /api/v1/tasks/h%2Eexample%40sha256%3A3");
}

#[tokio::test]
async fn a_job_is_followed_to_its_end() {
    for (state, code) in [("SUCCESS", 0), ("FAILURE", 1)] {
        let job = |state: &str, held: u64| {
            json!({
                "id": 7, "state": state, "doing": "storing", "askedBy": "ann", "request": { "image": "h.example/a:v1" },
                "created": "", "errors": ["n-1 has no room"],
                "progress": { "bytes": 100, "bytesHeld": held, "nodes": 1, "nodesDone": 0, "nodesFailed": 0 },
                "layers": [], "success": [], "failure": [], "rowsLeftOut": 0,
            })
        };
        let gateway = Double::start(move |asked, n_before| match (asked.line.as_str(), n_before) {
            ("POST /api/v1/preheat", _) => document(202, &job("PENDING", 0)),
            ("GET /api/v1/preheat/7", 0) => document(200, &job("PENDING", 40)),
            // One look fails; the job goes on.
            ("GET /api/v1/preheat/7", 1) => document(503, &json!({ "message": "later" })),
            _ => document(200, &job(state, 100)),
        })
        .await;
        let url = gateway.url();
        let ran =
            run(&["--gateway", &url, "preheat", "h.example/a:v1", "--wait", "--scope", "all_peers"]).await;
        ran.ends(code, "n-1 has no room");
        assert_eq!(ran.err.lines().count(), 2, "one line for each change: {ran:?}");
        assert!(ran.err.starts_with("7 h.example/a:v1: storing, 40 %"), "{ran:?}");
        let ran = run(&["--gateway", &url, "preheat", "h.example/a:v1", "-o", "json"]).await;
        assert_eq!((ran.code, &ran.json()["state"]), (0, &json!("PENDING")));
        run(&["--gateway", &url, "preheat", "show", "7"]).await.ends(code, "100 B of 100 B");
        run(&["--gateway", &url, "preheat", "cancel", "7"]).await.ends(0, state);
        assert_eq!(gateway.lines().last().unwrap(), "DELETE /api/v1/preheat/7");
    }
}

#[tokio::test]
async fn nothing_is_purged_without_a_word() {
    let removal = json!({ "nodes": { "asked": 1, "failed": 1 }, "failed": [{ "id": "n-1", "address": "a", "cause": "busy" }] });
    let done =
        json!({ "registry": "h.example", "repository": "a", "blobs": { "own": 1 }, "removal": removal });
    let gateway = Double::always(207, done).await;
    let purge = ["--gateway", &gateway.url(), "purge", "h.example/a"];
    run(&purge).await.ends(2, "--yes");
    assert_eq!(gateway.lines(), [""; 0]);
    run(&[&purge[..], &["--yes"]].concat()).await.ends(1, "n-1 (a): busy");
    assert_eq!(gateway.lines(), ["POST /api/v1/repositories/purge"]);
    run(&["purge", "H.example/A", "--yes"]).await.ends(2, "is not lower-case");
}
