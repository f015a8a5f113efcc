//! The registry's credentials stay in the gateway: all that leaves it is searched for them.
//!
//! Packets of every machine but the registry's own, all files, the memory of the other programs, metrics, logs
//! at the finest level and the answers that errors get.

use anyhow::{Result, ensure};
use http::Request;
use serde_json::{Value, json};
use shoal_tests::capture::Capture;
use shoal_tests::fault::Effect;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::host::Host;
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::process::Process;
use shoal_tests::registry::RegistrySpec;
use shoal_tests::runtime::containerd::Containerd;
use shoal_tests::secrets::Secrets;
use shoal_tests::shoal::Part;

/// Long and of one kind of letters: what is found is no accident, and no encoding of text changes it.
const PASSWORD: &str = "hx7vq2mzk9wd4tyn8rbc3jgf";
/// Something of which a search must find every trace.
const PLANTED: &str = "planted-5f0c1b7e9d";

/// The robot's password, as it is and as it is sent, and what makes each token good.
fn secrets(fleet: &Fleet) -> Result<Secrets> {
    let robot = fleet.registry.user("robot")?;
    let basic = robot.basic().replace("Basic ", "");
    let secrets = Secrets::default().and("password", PASSWORD).and("password as sent", &basic);
    let given = fleet.registry.tokens.as_ref().map(|it| it.given()).unwrap_or_default();
    ensure!(!given.is_empty(), "no token was given");
    let signatures = given.iter().filter_map(|it| it.rsplit('.').next());
    Ok(signatures.fold(secrets, |secrets, it| secrets.and("token", it)))
}

/// Everything a fleet does with credentials: pulls, a pull of the cache, and answers of all kinds of failure.
async fn live(fleet: &Fleet, nodes: &[Containerd], image: &Image) -> Result<()> {
    let registry = &fleet.registry;
    for node in nodes {
        node.pull(registry, image).await?;
        node.forget(registry, image).await?;
        node.pull(registry, image).await?;
    }
    let absent = "sha256:".to_owned() + &"0".repeat(64);
    for effect in [None, Some(401), Some(403), Some(500)] {
        if let Some(code) = effect {
            registry.front.hurt("/v2/", u32::MAX, Effect::Status { code, retry_after: None });
        }
        for path in ["team/app/manifests/v9", "team/other/manifests/v1", &format!("team/app/blobs/{absent}")]
        {
            let answer = nodes[0].host.send(fleet.ask(path).body(Default::default())?).await?;
            ensure!(!answer.status().is_success(), "{path}: {}", answer.status());
        }
        registry.front.heal();
    }
    // In the clear over loopback, so that the capture has them.
    for service in fleet.sidecars.iter().chain([&fleet.gateway, &fleet.scheduler]) {
        ensure!(service.metrics().await?.contains("shoal_"), "{}: no metrics", service.host.name());
    }
    Ok(())
}

/// Shows that the searches find what is there: in a packet, in a file and in memory.
async fn check_searches(lab: &Lab, node: &Host, gateway: &Process) -> Result<()> {
    let planted = Secrets::default().and("planted", PLANTED);
    let capture = Capture::start([node])?;
    let request = Request::get("http://127.0.0.1:65011/metrics").header("authorization", PLANTED);
    node.send(request.body(Default::default())?).await?;
    ensure!(!capture.finish()?.find(&planted).is_empty(), "not found in a packet");

    let file = node.dir().join("planted");
    std::fs::write(&file, format!("before {PLANTED} after"))?;
    ensure!(planted.find_below(lab.dir(), &[])?.len() == 1, "not found in a file");
    ensure!(planted.find_below(lab.dir(), &[file])?.is_empty(), "found in a file that is excepted");

    let password = Secrets::default().and("password", PASSWORD);
    ensure!(!password.find_in_memory("gateway", gateway)?.is_empty(), "not found in the gateway's memory");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registrys_credentials_are_nowhere_outside_the_gateway() -> Result<()> {
    let mut lab = Lab::start("secrets", LabSpec::nodes(2)).await?;
    let registry = RegistrySpec::plain().with_tls().with_tokens();
    let registry = registry.for_user("robot", PASSWORD).unknown_to_nodes();
    let mut fleet = Fleet::start(&mut lab, FleetSpec::before(registry)).await?;
    let trace = |it: &mut Value| it["log"] = json!({ "level": "trace" });
    fleet.reconfigure(trace, trace).await?;
    fleet.scheduler.change_settings(trace).await?;
    let nodes = fleet.containerds().await?;
    let image = fleet.publish(&[1 << 20]).await?;
    check_searches(&lab, &lab.nodes()[0], &fleet.gateway.process).await?;

    let hosts = lab.nodes().iter().chain([&fleet.gateway.host, &fleet.scheduler.host]);
    let capture = Capture::start(hosts)?;
    live(&fleet, &nodes, &image).await?;
    let captured = capture.finish()?;

    let secrets = secrets(&fleet)?;
    let own = secrets.find_in_memory("gateway", &fleet.gateway.process)?;
    ensure!(own.iter().any(|it| it.secret == "token"), "the gateway itself has no token: {own:?}");
    let mut found = captured.find(&secrets);
    // What an operator wrote there is where it belongs.
    let settings = Part::Gateway.settings_file(&fleet.gateway.host);
    found.extend(secrets.find_below(lab.dir(), &[settings])?);
    found.extend(secrets.find_in_memory("scheduler", &fleet.scheduler.process)?);
    for (sidecar, node) in fleet.sidecars.iter().zip(&nodes) {
        found.extend(secrets.find_in_memory("sidecar", &sidecar.process)?);
        found.extend(secrets.find_in_memory("containerd", &node.process)?);
    }
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}
