//! The program as people run it: exit codes, what is printed and what is sent; against a gateway, a sidecar and a mirror
//! that answer as they are told to, and against a real gateway.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::stream;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, RANGE, RETRY_AFTER};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shoal_ops::Context;
use shoal_ops::settings::Reader;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

/// A management token, and the hash of its secret.
const TOKEN: &str = "shoal_3985dac9_cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
const HASH: &str = "3985dac9133f8144ae1ab001dd0a29dffdddb1bf14a5f95aa24c8eed2e5bde2c";
/// Bytes that a mirror sends at once.
const FRAME: usize = 64 << 10;
const DEADLINE: Duration = Duration::from_secs(60);

/// A server that answers as it is told to, and remembers what it was asked.
struct Double {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request: `GET /path?query`, and its credential.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    authorization: Option<String>,
    range: Option<String>,
}

impl Double {
    /// `answer` is told the request, and how many like it came before.
    async fn start(answer: impl Fn(&Asked, usize) -> Response + Clone + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (listener, noted) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), asked.clone());
        let address = listener.local_addr().unwrap();
        let serve = move |request: Request| {
            let header =
                |name| request.headers().get(name).and_then(|it: &http::HeaderValue| it.to_str().ok());
            let this = Asked {
                line: format!("{} {}", request.method(), request.uri()),
                authorization: header(AUTHORIZATION).map(str::to_owned),
                range: header(RANGE).map(str::to_owned),
            };
            let mut noted = noted.lock().unwrap();
            let n_before = noted.iter().filter(|it| it.line == this.line).count();
            noted.push(this.clone());
            std::future::ready(answer(&this, n_before))
        };
        let router = Router::new().fallback(serve);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    /// One that gives the same answer to everybody.
    async fn always(status: u16, body: Value) -> Self {
        Self::start(move |_, _| document(status, &body)).await
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|it| it.line.clone()).collect()
    }
}

fn document(status: u16, body: &Value) -> Response {
    Response::builder().status(status).body(Body::from(body.to_string())).unwrap()
}

/// What became of a run.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|it| panic!("{it}: {self:?}"))
    }

    #[track_caller]
    fn ends(&self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.out.contains(part) || self.err.contains(part), "{part:?} in {self:?}");
    }
}

/// Runs it with the token in the environment, and looks that the token is printed nowhere.
async fn run(args: &[&str]) -> Ran {
    run_with(args, &[("SHOAL_TOKEN", TOKEN)]).await
}

async fn run_with(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoalctl"));
    command
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.unwrap().unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!format!("{ran:?}").contains("cdcdcd"), "the token is printed: {ran:?}");
    ran
}

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

/// A node's file system, its sidecar and its mirror.
struct Scene {
    root: TempDir,
    admin: Double,
    mirror: Double,
}

impl Scene {
    async fn new(mirror: Double) -> Self {
        let admin = Double::start(|asked, _| match asked.line.as_str() {
            "GET /healthz" => document(200, &json!("ok")),
            "GET /readyz" => document(200, &json!({ "unmet": [] })),
            "GET /metrics" => Response::new(Body::from(
                "shoal_certificate_expiry_timestamp_seconds 4000000000\n\
                 shoal_peer_scheduler_connected{scheduler=\"https://10.0.0.1:65005\"} 1\n\
                 shoal_store_unstored_pieces_total 0\n",
            )),
            "GET /pulls.json" => {
                let digest = format!("sha256:{}", "1".repeat(64));
                let pull = json!({
                    "at": 1, "registry": "h.example", "repository": "a", "digest": digest, "outcome": "complete",
                    "supply": "swarm", "bytes": 5, "fetched": { "fromRack": 5 }, "steps": [], "millis": 3,
                });
                document(200, &json!({ "startedAt": 1, "forgotten": 0, "pulls": [pull] }))
            }
            _ => document(404, &json!({})),
        })
        .await;
        let scene = Self { root: tempfile::tempdir().unwrap(), admin, mirror };
        let (admin, mirror) = (scene.admin.address, scene.mirror.address);
        // What listens there takes connections, and that is all that is asked of a gateway here.
        scene.write(
            "etc/shoal/sidecar.yaml",
            &format!(
                "security: {{mtls: false}}\ngateways: ['http://{admin}']\nadmin: {{listen: '{admin}'}}\n\
                 proxy: {{listen: '{mirror}', registries: [{{name: h.example}}]}}\nstorage: {{dir: /var/shoal, freeSpaceFloor: 0}}\n"
            ),
        );
        scene.write("var/shoal/blob", "");
        scene.write(
            "etc/containerd/config.toml",
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n",
        );
        scene.write(
            "etc/containerd/certs.d/h.example/hosts.toml",
            &format!("[host.\"http://{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"),
        );
        scene
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let root = ["--root", self.root.path().to_str().unwrap()];
        run(&[args, &root].concat()).await
    }
}

/// A mirror that has one blob, and breaks the first stream over it in the middle.
async fn mirror_of(content: &'static [u8]) -> Double {
    let path = format!("GET /v2/a/blobs/{}?ns=h.example", digest(content));
    Double::start(move |asked, n_before| match asked.line.as_str() {
        "GET /v2/?ns=h.example" => {
            let mut answer = document(200, &json!({}));
            answer.headers_mut().insert("oci-namespace", "h.example".parse().unwrap());
            answer
        }
        line if line == path => {
            let begin = asked
                .range
                .as_deref()
                .and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            let begin: usize = begin.unwrap_or_default();
            if begin >= content.len() {
                let size = format!("bytes */{}", content.len());
                return Response::builder()
                    .status(416)
                    .header(CONTENT_RANGE, size)
                    .body(Body::empty())
                    .unwrap();
            }
            let rest = &content[begin..];
            let stated = format!("bytes {begin}-{}/{}", content.len() - 1, content.len());
            let answer = Response::builder()
                .status(if begin > 0 { 206 } else { 200 })
                .header(CONTENT_LENGTH, rest.len())
                .header(CONTENT_RANGE, stated);
            if n_before > 0 {
                return answer.body(Body::from(rest)).unwrap();
            }
            let half = rest[..rest.len() / 2].chunks(FRAME).map(Ok);
            let broken = std::iter::once(Err(std::io::Error::other("broken")));
            answer.body(Body::from_stream(stream::iter(half.chain(broken)))).unwrap()
        }
        "GET /v2/a/manifests/v1?ns=h.example" => {
            let named = |digit: &str| json!({ "digest": format!("sha256:{}", digit.repeat(64)), "size": 5 });
            document(200, &json!({ "schemaVersion": 2, "config": named("1"), "layers": [named("2")] }))
        }
        _ => document(
            404,
            &json!({ "errors": [{ "code": "NAME_UNKNOWN", "message": "is not in proxy.registries" }] }),
        ),
    })
    .await
}

fn digest(content: &[u8]) -> String {
    let sum = Sha256::digest(content);
    format!("sha256:{}", sum.iter().map(|it| format!("{it:02x}")).collect::<String>())
}

#[tokio::test]
async fn a_node_that_is_well_has_nothing_to_mend() {
    let scene = Scene::new(mirror_of(b"x").await).await;
    let ran = scene.run(&["doctor"]).await;
    // Certificates are off in the settings of this node, and not in its metrics.
    ran.ends(0, "0 failures, 0 warnings");
    assert!(
        ran.out.contains("ok    clock: within 1 s of the gateway or registry behind the mirror"),
        "{}",
        ran.out
    );
    let found = scene.run(&["doctor", "-o", "json"]).await.json();
    assert_eq!(found["failures"], 0);
    assert!(found["findings"].as_array().unwrap().iter().all(|it| it["state"] == "ok"), "{found}");
}

#[tokio::test]
async fn each_thing_that_is_wrong_is_found_with_its_fix() {
    let scene = Scene::new(mirror_of(b"x").await).await;
    scene.write("etc/containerd/certs.d/h.example/hosts.toml", "server = 'https://h.example'");
    scene.write("etc/docker/daemon.json", "{}");
    scene.write("etc/containers/registries.conf", "unqualified-search-registries = []");
    let ran = scene.run(&["doctor"]).await;
    ran.ends(1, "1 failure, 2 warnings");
    for part in [
        "FAIL  containerd, h.example: /etc/containerd/certs.d/h.example/hosts.toml names no host",
        "fix: write /etc/containerd/certs.d/h.example/hosts.toml",
        "warn  docker: /etc/docker/daemon.json does not name the mirror",
        "warn  podman, h.example: no file names it",
    ] {
        assert!(ran.out.contains(part), "{part:?} in {}", ran.out);
    }
    std::fs::remove_file(scene.root.path().join("etc/shoal/sidecar.yaml")).unwrap();
    let node = scene.admin.url();
    scene
        .run(&["doctor", "--node", &node])
        .await
        .ends(1, "FAIL  settings: /etc/shoal/sidecar.yaml is not there");
}

#[tokio::test]
async fn an_image_is_explained_by_what_the_sidecar_remembers() {
    let scene = Scene::new(mirror_of(b"x").await).await;
    let ran = scene.run(&["explain", "h.example/a:v1"]).await;
    ran.ends(0, "complete, 5 B");
    ran.ends(0, "the runtime had it already");
    let told = scene.run(&["explain", "h.example/a:v1", "-o", "json"]).await.json();
    let n_pulls: Vec<_> =
        told["blobs"].as_array().unwrap().iter().map(|it| it["pulls"].as_array().unwrap().len()).collect();
    assert_eq!(n_pulls, [1, 0]);
    scene
        .run(&["explain", "other.example/a:v1"])
        .await
        .ends(5, "add {name: other.example} to proxy.registries");
}

#[tokio::test]
async fn a_blob_is_fetched_to_its_end_and_verified() {
    // More than buffers on the way hold, so that some of it arrives before the stream breaks.
    let content: &[u8] = (0..64 * FRAME).map(|it| it as u8).collect::<Vec<_>>().leak();
    let scene = Scene::new(mirror_of(content).await).await;
    let dir = tempfile::tempdir().unwrap();
    let (blob, file) = (format!("h.example/a@{}", digest(content)), dir.path().join("blob"));
    let get = ["get", &blob, "-o", file.to_str().unwrap()];
    let ran = scene.run(&get).await;
    ran.ends(0, "matches sha256:");
    assert_eq!(std::fs::read(&file).unwrap(), content);
    let ranges: Vec<_> = scene.mirror.asked.lock().unwrap().iter().map(|it| it.range.clone()).collect();
    assert!(matches!(&ranges[..], [None, Some(rest)] if rest != "bytes=0-"), "{ranges:?}");

    std::fs::write(dir.path().join("blob.part"), content).unwrap();
    scene.run(&get).await.ends(0, "matches sha256:");
    std::fs::write(dir.path().join("blob.part"), [0; 7]).unwrap();
    scene.run(&get).await.ends(1, "it was removed");
    assert!(!dir.path().join("blob.part").exists() && std::fs::read(&file).unwrap() == content);
    let other = format!("other.example/a@{}", digest(content));
    scene.run(&["get", &other, "-o", file.to_str().unwrap()]).await.ends(5, "add {name: other.example}");
    scene.run(&["get", "h.example/a:v1", "-o", "x"]).await.ends(2, "names no blob");
}

#[tokio::test]
async fn shells_are_told_what_there_is() {
    for shell in ["bash", "zsh", "fish"] {
        run(&["completions", shell]).await.ends(0, "preheat");
    }
}

/// An address of this process's own: nobody else has the port between its being chosen and its being used.
fn own_address() -> SocketAddr {
    static N_GIVEN: AtomicU16 = AtomicU16::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 79, high, low], 20_000 + N_GIVEN.fetch_add(1, Ordering::Relaxed)))
}

async fn real_gateway(dir: &Path) -> (String, Context) {
    let address = own_address();
    let user = format!(
        "
listen: '127.0.0.1:0'
security: {{mtls: false}}
storage: {{dir: '{}', freeSpaceFloor: 0}}
management:
  listen: '{address}'
  tokens:
    - {{name: ops, hash: 'sha256:{HASH}', scopes: [read, preheat, delete]}}
registries: [{{name: harbor.example.com, url: 'http://{}', insecure: true}}]
",
        dir.display(),
        own_address()
    );
    let reader = Reader::new(&user, shoal_gateway::settings::DEFAULT, |_| None);
    let settings = shoal_gateway::settings::Settings::read(&reader);
    reader.finish().unwrap();
    let ctx = Context::new("gateway", "0");
    shoal_gateway::start(settings, ctx.clone()).await.unwrap();
    (format!("http://{address}"), ctx)
}

#[tokio::test]
async fn a_real_gateway_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _ctx) = real_gateway(dir.path()).await;
    let gateway = ["--gateway", &url];
    let ask = async |args: &[&str]| run(&[&gateway[..], args].concat()).await;
    let status = ask(&["status"]).await;
    status.ends(0, "regions  no other");
    status.ends(0, "0 jobs under way");
    ask(&["nodes"]).await.ends(0, "nodes");
    ask(&["tasks", "--registry", "harbor.example.com"]).await.ends(0, "0 tasks");
    ask(&["tasks", "--registry", "elsewhere.example"])
        .await
        .ends(2, "registry is none that this gateway serves");
    ask(&["tasks", "--state", "DONE"]).await.ends(2, "state is none of");
    ask(&["task", "x"]).await.ends(5, "does not exist");
    ask(&["preheat", "elsewhere.example/a:v1"]).await.ends(2, "is no name of a registry");
    ask(&["preheat", "harbor.example.com/a:v1", "--scope", "all"])
        .await
        .ends(2, "is none of single_seed_peer");
    ask(&["preheat", "show", "1"]).await.ends(5, "does not exist");
    ask(&["purge", "harbor.example.com/a", "--yes"]).await.ends(0, "0 to be removed");
    // Nobody listens where its registry is.
    let failed = ask(&["preheat", "harbor.example.com/a:v1", "--wait", "--timeout", "1s"]).await;
    failed.ends(1, "state     FAILURE");
    let jobs = ask(&["preheat", "list", "--state", "FAILURE", "-o", "json"]).await.json();
    let id = jobs["jobs"][0]["id"].to_string();
    ask(&["preheat", "show", &id]).await.ends(1, "harbor.example.com/a:v1");
    ask(&["preheat", "cancel", &id]).await.ends(0, "FAILURE");
    let without = run_with(&["--gateway", &url, "tasks"], &[]).await;
    without.ends(4, "--token-file");
}
