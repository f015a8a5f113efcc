//! The demo as its user sees it: one JSON object with the figures that Shoal promises, and nothing left.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use shoal_tests::wait;
use tokio::net::TcpStream;

#[test]
fn the_registry_sends_the_image_once_and_every_digest_matches() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["demo", "--nodes", "3", "--size", "16Mi", "--json"])
        .output()
        .expect("the demo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let figures: Value = serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else");
    let keys: Vec<_> = figures.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = [
        "digestsVerified",
        "gatewayUploadRatio",
        "imageBytes",
        "nodes",
        "peerShare",
        "registryBytes",
        "registryEgressRatio",
        "seconds",
    ];
    assert_eq!(keys, expected);
    assert_eq!(figures["digestsVerified"], true);
    assert_eq!(figures["nodes"], 3);
    let number = |key: &str| figures[key].as_f64().expect("a number");
    assert!((1.0..=1.02).contains(&number("registryEgressRatio")), "{figures}");
    assert!((0.9..=1.5).contains(&number("gatewayUploadRatio")), "{figures}");
    assert!(number("peerShare") > 0.4, "{figures}");
}

#[tokio::test]
async fn no_service_outlives_a_demo_that_was_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["demo", "--nodes", "1", "--size", "1Mi", "--keep"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the demo starts");
    let told = BufReader::new(demo.stderr.take().expect("it was asked for")).lines();
    let told = told.map(|it| it.expect("text")).take_while(|it| !it.starts_with("Ctrl-C ends it all"));
    // The table of services ends each line with the address of an admin listener.
    let admins: Vec<_> =
        told.filter_map(|it| it.rsplit_once("  http://").map(|(_, admin)| admin.to_owned())).collect();
    demo.kill().expect("the demo can be killed");
    demo.wait().expect("the demo ends");

    assert_eq!(admins.len(), 3, "{admins:?}");
    for admin in admins {
        let is_gone = async || TcpStream::connect(&admin).await.is_err().then_some(());
        wait::until(&format!("{admin} is closed"), Duration::from_secs(10), is_gone).await.expect("it is");
    }
}
