//! Looks at a node and its wiring, and says what is wrong and how to mend it.
//!
//! What is seen is judged by pure rules: of the sidecar in [`sidecar`], of the runtimes in [`runtimes`]. Here it is only
//! gathered. What cannot be seen because of something that is wrong before it is not told: it would only hide that.

pub mod finding;
pub mod runtimes;
pub mod samples;
pub mod sidecar;

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::statvfs::statvfs;
use shoal_oci::RegistryName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use crate::cli::{self, Reach};
use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::node::{Node, Reply, clock_of};
use crate::settings::{NodeSettings, below, mirror, node};
use finding::{Diagnosis, Finding};
use runtimes::{CERTS_D, File, Hosts};
use samples::Samples;

/// How long a gateway may take to accept a connection.
const DIAL: Duration = Duration::from_secs(3);
/// The largest file that is looked at, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Looks at everything, in the order in which it is told.
///
/// # Errors
/// Where the command line names something that cannot be used.
pub async fn examine(asked: &cli::Doctor, reach: &Reach) -> Result<Diagnosis, Fault> {
    let on = &asked.on;
    let settings = NodeSettings::load(on);
    let seen = settings.as_ref().map(|it| it.mistakes.as_deref());
    let mut found = vec![sidecar::judge_settings(&on.settings.display().to_string(), seen)];
    let settings = settings.ok();

    let node = Node::new(node(reach.node.as_ref(), settings.as_ref()))?;
    found.extend(look_at_sidecar(&node).await);
    let mirror = mirror(settings.as_ref());
    let ping = Node::mirror(mirror)?.reply(&ping_path(settings.as_ref())).await;
    found.push(sidecar::judge_mirror(&mirror.to_string(), &ping));
    found.push(look_at_clock(reach, &ping).await?);
    if let Some(settings) = &settings {
        found.push(look_at_disk(settings, &on.root));
        found.push(look_at_gateways(&settings.sidecar.gateways).await);
        let is_readable = |it: &Path| std::fs::File::open(below(&on.root, it)).is_ok();
        found.extend(sidecar::judge_registries(&settings.sidecar.proxy, is_readable));
        found.extend(look_at_runtimes(settings, &on.root));
    }
    Ok(Diagnosis(found))
}

/// What the admin listener tells. Where it does not answer, that is all there is to tell.
async fn look_at_sidecar(node: &Node) -> Vec<Finding> {
    let health = node.reply("/healthz").await;
    let mut found = vec![sidecar::judge_health(node.address().as_str().trim_end_matches('/'), &health)];
    if health.is_err() {
        return found;
    }
    found.push(sidecar::judge_readiness(&node.reply("/readyz").await));
    let Ok(metrics) = node.reply("/metrics").await else { return found };
    let samples = Samples::parse(&String::from_utf8_lossy(&metrics.body));
    let ends = samples.sum("shoal_certificate_expiry_timestamp_seconds");
    found.push(sidecar::judge_certificate(ends, now()));
    found.push(sidecar::judge_schedulers(&samples));
    found.push(sidecar::judge_storing(samples.sum("shoal_store_unstored_pieces_total")));
    found
}

/// A question that the mirror passes on, so that the answer shows another machine's clock.
fn ping_path(settings: Option<&NodeSettings>) -> String {
    let rules = settings.map(|it| it.sidecar.proxy.registries.as_slice()).unwrap_or_default();
    let named = rules.iter().find_map(|it| it.names.as_str().parse::<RegistryName>().ok());
    named.map_or_else(|| "/v2/".to_owned(), |it| format!("/v2/?ns={it}"))
}

/// Compares with the gateway, where it is named, or else with whoever answered by way of the mirror.
async fn look_at_clock(reach: &Reach, ping: &Reply) -> Result<Finding, Fault> {
    if reach.gateway.is_some() {
        let gateway = Gateway::new(reach, None)?;
        let theirs = gateway.healthy().await.ok().and_then(|it| clock_of(&it, false));
        if let Some(theirs) = theirs {
            return Ok(sidecar::judge_clock(Some(("the gateway", theirs)), now()));
        }
    }
    let theirs = ping.as_ref().ok().and_then(|it| clock_of(it, true));
    Ok(sidecar::judge_clock(theirs.map(|it| ("the gateway or registry behind the mirror", it)), now()))
}

fn look_at_disk(settings: &NodeSettings, root: &Path) -> Finding {
    let storage = &settings.sidecar.storage;
    let free = statvfs(&below(root, &storage.dir))
        .map(|it| it.blocks_available().saturating_mul(it.fragment_size()));
    let free = free.map_err(|it| it.desc());
    sidecar::judge_disk(&storage.dir.display().to_string(), free, storage.free_floor.0)
}

async fn look_at_gateways(gateways: &[String]) -> Finding {
    let mut seen = Vec::new();
    for gateway in gateways {
        seen.push((gateway.clone(), dial(gateway).await));
    }
    sidecar::judge_gateways(&seen)
}

async fn dial(gateway: &str) -> Result<(), String> {
    let url = Url::parse(gateway).map_err(|it| it.to_string())?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let address = (host, url.port_or_known_default().unwrap_or_default());
    match timeout(DIAL, TcpStream::connect(address)).await {
        Ok(connected) => connected.map(drop).map_err(|it| it.to_string()),
        Err(_) => Err(format!("no connection within {} s", DIAL.as_secs())),
    }
}

/// The runtimes that are installed.
fn look_at_runtimes(settings: &NodeSettings, root: &Path) -> Vec<Finding> {
    let (mirror, proxy) = (mirror(Some(settings)), &settings.sidecar.proxy);
    let is_there = |path: &str| below(root, path.as_ref()).exists();
    let names: Vec<_> = proxy.registries.iter().map(|it| it.names.as_str()).collect();
    let mut found = Vec::new();
    if is_there("/etc/containerd") || is_there("/run/containerd/containerd.sock") {
        found.push(runtimes::judge_containerd(read(root, "/etc/containerd/config.toml").as_ref()));
        found.extend(names.iter().map(|it| runtimes::judge_hosts(&hosts(root, it), mirror)));
    }
    if is_there("/etc/docker") || is_there("/run/docker.sock") {
        let default = proxy.default.as_ref().map(|it| it.names.as_str());
        found.push(runtimes::judge_docker(read(root, "/etc/docker/daemon.json").as_ref(), mirror, default));
    }
    if is_there("/etc/containers/registries.conf") || is_there("/etc/containers/registries.conf.d") {
        let files = registries_conf(root);
        let named = names.iter().filter_map(|it| it.parse().ok());
        found.extend(named.map(|it| runtimes::judge_podman(&files, &it, mirror)));
    }
    if found.is_empty() {
        found.push(Finding::warn(
            "runtimes",
            "neither containerd, Docker nor Podman is installed here",
            "run this on the node; in a container, with the node's file system at --root DIR",
        ));
    }
    found
}

/// What containerd has for one registry.
pub fn hosts(root: &Path, registry: &str) -> Hosts {
    let dirs = runtimes::directories(registry).into_iter().map(|it| format!("{CERTS_D}/{it}"));
    let dir = dirs.into_iter().find(|it| below(root, it.as_ref()).is_dir());
    let file = dir.and_then(|it| read(root, &format!("{it}/hosts.toml")));
    Hosts { registry: registry.to_owned(), file }
}

/// The file of Podman and its kin, and its drop-ins, in the order in which they are read.
fn registries_conf(root: &Path) -> Vec<File> {
    let dir = "/etc/containers/registries.conf.d";
    let entries = std::fs::read_dir(below(root, dir.as_ref())).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|it| it.file_name().into_string().ok()).collect();
    names.retain(|it| it.ends_with(".conf"));
    names.sort();
    let drop_ins = names.iter().map(|it| format!("{dir}/{it}"));
    let all = ["/etc/containers/registries.conf".to_owned()].into_iter().chain(drop_ins);
    all.filter_map(|it| read(root, &it)).collect()
}

/// A file of the node; none where there is none.
fn read(root: &Path, path: &str) -> Option<File> {
    let text = text(&below(root, path.as_ref()));
    let text = match text {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        text => text.map_err(|it| it.to_string()),
    };
    Some(File { path: path.to_owned(), text })
}

fn text(path: &Path) -> io::Result<String> {
    if path.metadata()?.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_FILE} bytes")));
    }
    std::fs::read_to_string(path)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}
