//! The same against a real gateway.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use shoal_ops::Context;
use shoal_ops::settings::Reader;

use crate::{HASH, run, run_with};

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
