//! What is asked on a node, whose sidecar and mirror answer as they are told to.

use axum::body::Body;
use axum::response::Response;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::double::{Double, document};
use crate::{Ran, run};

/// Bytes that a mirror sends at once.
const FRAME: usize = 64 << 10;

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
