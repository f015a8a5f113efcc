//! `shoalctl doctor` on a real node: where all is well it has nothing to say, and each set-up that was broken on purpose
//! is found, with what to do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_model::ByteSize;
use shoal_tests::command::Launch;
use shoal_tests::disk::Disk;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::host::Host;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::registry::RegistrySpec;
use shoal_tests::shoal::{Part, shoalctl};
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
const DISK: ByteSize = ByteSize(64 << 20);
const CONTAINERD: &str = "etc/containerd/config.toml";
const HOSTS: &str = "etc/containerd/certs.d/registry.test/hosts.toml";
const SETTINGS: &str = "etc/shoal/sidecar.yaml";

/// A node as somebody who is logged in there sees it, below a directory of its own.
struct Node {
    host: Host,
    root: PathBuf,
}

/// What a finding has to be: its subject, its state, and a part of its text.
type Expected<'a> = (&'a str, &'a str, &'a str);

impl Node {
    /// Files lie where a node has them; what settings name lies where it is.
    fn new(host: &Host) -> Result<Self> {
        let node = Self { host: host.clone(), root: host.dir().join("root") };
        node.write(
            CONTAINERD,
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n",
        )?;
        symlink(host.dir().join("hosts.d"), node.root.join("etc/containerd/certs.d"))?;
        fs::create_dir_all(node.root.join("etc/shoal"))?;
        symlink(Part::Sidecar.settings_file(host), node.root.join(SETTINGS))?;
        let above = host.dir().ancestors().filter(|it| it.parent() == Some(Path::new("/"))).last();
        let above = above.context("a lab in no directory")?;
        symlink(above, node.root.join(above.strip_prefix("/")?))?;
        Ok(node)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().context("a path without a directory")?)?;
        fs::write(&path, text).with_context(|| format!("{}: not written", path.display()))
    }

    fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.root.join(path)).context(path.to_owned())
    }

    fn remove(&self, path: &str) -> Result<()> {
        let path = self.root.join(path);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("{}: not removed", path.display()))
    }

    /// The findings, and what the process ended with.
    async fn examine(&self) -> Result<Value> {
        let asked = shoalctl()?.args(["doctor", "--output", "json", "--root"]).arg(&self.root);
        // It ends with 1 where something is wrong.
        let either = asked.wrapped_by(Launch::shell("\"$@\" || [ $? = 1 ]"));
        let out = self.host.run(either, DEADLINE).await?;
        serde_json::from_str(&out).with_context(|| format!("no document: {out}"))
    }

    async fn examine_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
        let last = std::cell::RefCell::new(String::new());
        let seen = wait::until(what, DEADLINE, async || {
            let found = self.examine().await;
            last.replace(format!("{found:#?}"));
            found.is_ok_and(|it| is_so(&it)).then_some(())
        });
        seen.await.with_context(|| last.borrow().clone())
    }

    /// Waits until nothing is wrong.
    async fn is_well(&self) -> Result<()> {
        self.examine_until("nothing wrong", |it| it["failures"] == 0 && it["warnings"] == 0).await
    }

    /// Waits until something is found, which comes with what to do.
    async fn finds(&self, (subject, state, text): Expected<'_>) -> Result<()> {
        let is_it = |it: &Value| {
            let says = it["what"].as_str().is_some_and(|it| it.contains(text));
            let helps = it["fix"].as_str().is_some_and(|it| !it.is_empty());
            it["subject"] == subject && it["state"] == state && says && helps
        };
        let is_found = |it: &Value| it["findings"].as_array().is_some_and(|it| it.iter().any(is_it));
        self.examine_until(&format!("{state} {subject}: {text}"), is_found).await
    }

    /// Another text in place of a file is found, and nothing is once the file is what it was.
    async fn finds_changed(
        &self,
        path: &str,
        change: impl Fn(&str) -> String,
        expected: Expected<'_>,
    ) -> Result<()> {
        let before = self.read(path)?;
        let after = change(&before);
        ensure!(before != after, "{path} is not changed: {before}");
        self.write(path, &after)?;
        self.finds(expected).await?;
        self.write(path, &before)?;
        self.is_well().await
    }

    /// A file that is there only while it is looked for.
    async fn finds_added(&self, path: &str, text: &str, expected: Expected<'_>) -> Result<()> {
        self.write(path, text)?;
        self.finds(expected).await?;
        self.remove(Path::new(path).parent().and_then(Path::to_str).context("no directory")?)?;
        self.is_well().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_set_up_that_is_broken_on_purpose_is_found() -> Result<()> {
    let mut lab = Lab::start("doctor", LabSpec::nodes(1)).await?;
    let disk = Disk::in_memory(lab.nodes()[0].dir().join("sidecar"), DISK).await?;
    let floor = json!({ "storage": { "freeSpaceFloor": "8Mi" } });
    let registry = RegistrySpec::plain().for_user("robot", "s3cret").unknown_to_nodes().with_tls();
    let mut fleet = Fleet::start(&mut lab, FleetSpec::before(registry).with_sidecar(floor)).await?;
    fleet.joined().await?;
    let containerd = fleet.containerds().await?.remove(0);
    let node = Node::new(&fleet.sidecars[0].host)?;

    // All is well, and so a pull goes through the sidecar.
    node.is_well().await?;
    let image = fleet.publish(&[1 << 20]).await?;
    containerd.pull(&fleet.registry, &image).await?;
    let served = fleet.metric("shoal_sidecar_served_bytes_total", &[]).await?;
    ensure!(served >= image.n_bytes() as f64, "{served} bytes went through the sidecar");

    // What others do not do.
    fleet.sidecars[0].process.kill().await?;
    node.finds(("sidecar", "fail", "does not answer")).await?;
    node.finds(("mirror", "fail", "does not answer")).await?;
    fleet.sidecars[0].process.restart().await?;
    node.is_well().await?;
    fleet.gateway.process.kill().await?;
    node.finds(("gateways", "fail", "none takes connections")).await?;
    fleet.gateway.process.restart().await?;
    node.is_well().await?;
    fleet.scheduler.process.kill().await?;
    node.finds(("schedulers", "fail", "connected to none")).await?;
    fleet.scheduler.process.restart().await?;
    node.is_well().await?;
    disk.fill()?;
    node.finds(("disk", "fail", "nothing is kept or shared")).await?;
    disk.make_room()?;
    node.is_well().await?;

    // The sidecar's settings.
    let typo = |it: &str| it.replacen("\"gateways\"", "\"gatways\"", 1);
    node.finds_changed(SETTINGS, typo, ("settings", "fail", "gatways")).await?;
    let none = |it: &str| it.replace("\"name\":\"registry.test\"", "\"name\":\"other.test\"");
    node.finds_changed(SETTINGS, none, ("containerd, other.test", "fail", "is not there")).await?;
    let elsewhere = |it: &str| it.replacen("\"proxy\":{", "\"proxy\":{\"listen\":\"127.0.0.1:65000\",", 1);
    node.finds_changed(SETTINGS, elsewhere, ("mirror", "fail", "does not answer")).await?;

    // The runtimes'.
    let unset = |it: &str| it.replace("config_path", "# config_path");
    node.finds_changed(CONTAINERD, unset, ("containerd", "warn", "")).await?;
    let old =
        |it: &str| format!("{it}[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'h']\nendpoint = []\n");
    node.finds_changed(CONTAINERD, old, ("containerd", "fail", "does not start")).await?;
    let wired = "containerd, registry.test";
    let secure = |it: &str| it.replace("http://127.0.0.1", "https://127.0.0.1");
    node.finds_changed(HOSTS, secure, (wired, "fail", "speaks plain HTTP")).await?;
    let past = |it: &str| it.replace("127.0.0.1:65001", "127.0.0.1:5000");
    node.finds_changed(HOSTS, past, (wired, "fail", "not the mirror")).await?;
    let garbled = |it: &str| format!("[{it}");
    node.finds_changed(HOSTS, garbled, (wired, "fail", "is no TOML")).await?;
    node.finds_added("etc/docker/daemon.json", "{}", ("docker", "warn", "does not name the mirror")).await?;
    let podman = "podman, registry.test";
    let unnamed = "unqualified-search-registries = []\n";
    node.finds_added("etc/containers/registries.conf", unnamed, (podman, "warn", "no file names it")).await?;
    let wrong = "[[registry]]\nlocation = 'registry.test'\n\
                 [[registry.mirror]]\nlocation = '127.0.0.1:65001'\ninsecure = true\n";
    node.finds_added("etc/containers/registries.conf", wrong, (podman, "fail", "which has to be")).await?;
    node.remove(HOSTS)?;
    node.finds((wired, "fail", "is not there: pulls go past Shoal")).await?;
    node.remove(SETTINGS)?;
    node.finds(("settings", "fail", "is not there")).await
}
