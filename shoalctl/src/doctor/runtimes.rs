//! Whether the runtimes of this node ask the mirror: containerd, Docker, and Podman with its kin.
//!
//! Each has files of its own, which docs/runtimes.md tells people to write. A runtime that is not installed is passed over.
//! One that is, and does not use the mirror, pulls past Shoal; one that is pointed there wrongly may not pull at all.

use std::net::{IpAddr, SocketAddr};

use shoal_oci::RegistryName;
use toml::{Table, Value};
use url::Url;

use super::finding::Finding;

/// Where containerd looks for how registries are reached, as people are told to set it.
pub const CERTS_D: &str = "/etc/containerd/certs.d";
/// The names under which containerd's configuration has the registries, the newest first.
const CRI: [&str; 2] = ["io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri"];

/// A file of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: String,
    /// What it holds, or why it cannot be read.
    pub text: Result<String, String>,
}

/// What containerd has for one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// The registry, by its name or a pattern.
    pub registry: String,
    /// The `hosts.toml` of the first directory that is there for it, which may lack one.
    pub file: Option<File>,
}

/// The directories in which containerd looks for a registry, in its order; for a pattern the one that catches all.
pub fn directories(registry: &str) -> Vec<String> {
    let mut names = Vec::new();
    if registry.parse::<RegistryName>().is_ok() {
        names.push(registry.to_owned());
        if let Some((host, port)) = registry.rsplit_once(':') {
            names.push(format!("{host}_{port}_"));
        }
    }
    names.push("_default".to_owned());
    names
}

/// Whether containerd's CRI plugin looks at `hosts.toml` at all; `None` where there is no configuration.
pub fn judge_containerd(config: Option<&File>) -> Finding {
    let subject = "containerd";
    let path = config.map_or("/etc/containerd/config.toml", |it| it.path.as_str());
    let fix = format!(
        "in {path}, then `systemctl restart containerd`:\n\
         [plugins.\"{}\".registry]   # version = 3, containerd 2.x\n  config_path = \"{CERTS_D}\"\n\
         [plugins.\"{}\".registry]   # version = 2, containerd 1.x\n  config_path = \"{CERTS_D}\"",
        CRI[0], CRI[1]
    );
    let unset = "sets no config_path for registries: containerd before 2.2 then looks at no hosts.toml";
    let Some(config) = config else {
        return Finding::warn(subject, format!("{path} is not there, and {unset}"), fix);
    };
    let table = match table(config) {
        Ok(table) => table,
        Err(why) => {
            return Finding::fail(
                subject,
                format!("{path} {why}"),
                "mend it: containerd does not start with it",
            );
        }
    };
    let is_off = |it: &Value| it.as_str().is_some_and(|it| it == "cri" || CRI.contains(&it));
    if table.get("disabled_plugins").and_then(Value::as_array).is_some_and(|it| it.iter().any(is_off)) {
        return Finding::ok(subject, "its CRI plugin is off: it serves Docker or nerdctl, and no kubelet");
    }
    let registry = |plugin: &str| table.get("plugins")?.get(plugin)?.get("registry");
    let set = CRI.into_iter().find_map(registry);
    let Some(config_path) =
        set.and_then(|it| it.get("config_path")).and_then(Value::as_str).filter(|it| !it.is_empty())
    else {
        return Finding::warn(subject, format!("{path} {unset}"), fix);
    };
    if set.and_then(|it| it.get("mirrors")).and_then(Value::as_table).is_some_and(|it| !it.is_empty()) {
        return Finding::fail(
            subject,
            format!("{path} has `mirrors` beside config_path, with which the CRI plugin does not start"),
            "take the tables registry.mirrors and registry.configs out, and write a hosts.toml for what they said",
        );
    }
    let dirs: Vec<_> = config_path.split(':').collect();
    if !dirs.contains(&CERTS_D) {
        return Finding::fail(
            subject,
            format!("{path} has config_path = \"{config_path}\", not {CERTS_D}"),
            fix,
        );
    }
    Finding::ok(subject, format!("looks for hosts.toml in {config_path}"))
}

/// Whether containerd asks the mirror for a registry.
pub fn judge_hosts(hosts: &Hosts, mirror: SocketAddr) -> Finding {
    let Hosts { registry, file } = hosts;
    let subject = format!("containerd, {registry}");
    let wanted = directories(registry).swap_remove(0);
    let path = format!("{CERTS_D}/{wanted}/hosts.toml");
    // With no server named, what the request names is asked where the mirror is away.
    let server =
        if wanted == "_default" { String::new() } else { format!("server = \"https://{registry}\"\n") };
    let fix = format!(
        "write {path}; it is read at the next pull:\n{server}[host.\"http://{mirror}\"]\n  \
         capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\""
    );
    let Some(file) = file else {
        return Finding::fail(subject, format!("{path} is not there: pulls go past Shoal"), fix);
    };
    let path = &file.path;
    let table = match table(file) {
        Ok(table) => table,
        Err(why) => return Finding::fail(subject, format!("{path} {why}"), fix),
    };
    let hosts: Vec<_> = table.get("host").and_then(Value::as_table).into_iter().flatten().collect();
    let Some(at) = hosts.iter().position(|(url, _)| is_at(url, mirror)) else {
        let named: Vec<_> = hosts.iter().map(|(url, _)| url.as_str()).collect();
        let named = if named.is_empty() { "no host".to_owned() } else { named.join(", ") };
        return Finding::fail(subject, format!("{path} names {named}, and not the mirror at {mirror}"), fix);
    };
    let (url, host) = hosts.get(at).map_or(("", None), |(url, host)| (url.as_str(), Some(*host)));
    if url.starts_with("https:") {
        return Finding::fail(subject, format!("{path} has {url}, and the mirror speaks plain HTTP"), fix);
    }
    // Without the key a host has all capabilities.
    let capabilities = host.and_then(|it| it.get("capabilities")).and_then(Value::as_array);
    let can = |what: &str| capabilities.is_none_or(|all| all.iter().any(|it| it.as_str() == Some(what)));
    if !can("pull") {
        return Finding::fail(subject, format!("{path} does not let the mirror serve pulls"), fix);
    }
    if table.get("server").and_then(Value::as_str).is_some_and(|it| is_at(it, mirror)) {
        let what = format!("{path} names the mirror as `server`: where the sidecar is away, pulls fail");
        return Finding::fail(subject, what, fix);
    }
    if let Some((first, _)) = hosts.first().filter(|_| at > 0) {
        let what = format!("{path} has {first} before the mirror, which is asked only where that fails");
        return Finding::warn(subject, what, "put the mirror's table first");
    }
    if !can("resolve") {
        let what = format!("{path} does not let the mirror resolve tags: each is asked of the registry");
        return Finding::warn(subject, what, "capabilities = [\"pull\", \"resolve\"]");
    }
    Finding::ok(subject, format!("{path} points at the mirror"))
}

/// Whether Docker asks the mirror, as it does for Docker Hub only. `default` is what requests that name no registry get.
pub fn judge_docker(daemon: Option<&File>, mirror: SocketAddr, default: Option<&str>) -> Finding {
    let subject = "docker";
    let path = daemon.map_or("/etc/docker/daemon.json", |it| it.path.as_str());
    let fix = format!(
        "in {path}, then `systemctl restart docker`:\n{{ \"registry-mirrors\": [\"http://{mirror}\"] }}"
    );
    let text = match daemon.map(|it| it.text.as_deref()) {
        None => "{}",
        Some(Ok(text)) => text,
        Some(Err(why)) => {
            return Finding::fail(subject, format!("{path} cannot be read: {why}"), "run this as root");
        }
    };
    // Docker takes an empty file for one without settings.
    let text = if text.trim().is_empty() { "{}" } else { text };
    let document = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(document) => document,
        Err(why) => {
            return Finding::fail(
                subject,
                format!("{path} is no JSON: {why}"),
                "mend it: Docker does not start with it",
            );
        }
    };
    let mirrors =
        document.get("registry-mirrors").and_then(serde_json::Value::as_array).into_iter().flatten();
    let mirrors: Vec<_> = mirrors.filter_map(serde_json::Value::as_str).collect();
    if !mirrors.iter().any(|it| is_at(it, mirror)) {
        return Finding::warn(
            subject,
            format!("{path} does not name the mirror: pulls from Docker Hub go past Shoal"),
            fix,
        );
    }
    if mirrors.iter().any(|it| is_at(it, mirror) && it.starts_with("https:")) {
        return Finding::fail(subject, format!("{path} has https://, and the mirror speaks plain HTTP"), fix);
    }
    match default {
        Some("docker.io") => Finding::ok(subject, "asks the mirror for Docker Hub"),
        Some(other) => Finding::fail(
            subject,
            format!("asks the mirror for Docker Hub, and gets {other} there (proxy.registryMirror.url)"),
            "set proxy.registryMirror.url to https://registry-1.docker.io, or take the mirror out of daemon.json",
        ),
        None => Finding::warn(
            subject,
            "asks the mirror for Docker Hub, which refuses requests that name no registry",
            "set proxy.registryMirror.url to https://registry-1.docker.io",
        ),
    }
}

/// Whether Podman, Buildah, skopeo and CRI-O ask the mirror for a registry; `files` are registries.conf and its drop-ins,
/// in the order in which they are read.
pub fn judge_podman(files: &[File], registry: &RegistryName, mirror: SocketAddr) -> Finding {
    let subject = format!("podman, {registry}");
    let location = format!("{mirror}/{registry}");
    let fix = format!(
        "write /etc/containers/registries.conf.d/shoal.conf:\n[[registry]]\nlocation = \"{registry}\"\n\n\
         [[registry.mirror]]\nlocation = \"{location}\"\ninsecure = true"
    );
    let mut found = None;
    for file in files {
        match table(file) {
            Err(why) => {
                let fix = "mend it: with it, no image is pulled";
                return Finding::fail(subject, format!("{} {why}", file.path), fix);
            }
            // A later file goes before an earlier one.
            Ok(table) => found = entry(&table, registry.as_str()).map(|it| (file.path.clone(), it)).or(found),
        }
    }
    let past = "pulls go past Shoal";
    let Some((path, entry)) = found else {
        return Finding::warn(subject, format!("no file names it: {past}"), fix);
    };
    let mirrors: Vec<_> = entry.get("mirror").and_then(Value::as_array).into_iter().flatten().collect();
    let text = |it: &Value| it.get("location").and_then(Value::as_str).map(str::to_owned).unwrap_or_default();
    let ours = mirrors.iter().find(|it| text(it) == location);
    let Some(ours) = ours else {
        let near = mirrors.iter().map(|it| text(it)).find(|it| it.contains(&format!(":{}", mirror.port())));
        return match near {
            Some(near) => Finding::fail(
                subject,
                format!("{path} has the mirror {near:?}, which has to be {location:?}"),
                fix,
            ),
            None => Finding::warn(subject, format!("{path} names no mirror at {mirror}: {past}"), fix),
        };
    };
    if registry.as_str().contains(':') {
        let fix = "give the registry a name without a port, or have containerd pull from it";
        return Finding::fail(
            subject,
            "its name has a port, with which a mirror's path is not understood",
            fix,
        );
    }
    if ours.get("insecure").and_then(Value::as_bool) != Some(true) {
        return Finding::fail(
            subject,
            format!("{path} lacks insecure = true, and the mirror speaks plain HTTP"),
            fix,
        );
    }
    Finding::ok(subject, format!("{path} points at the mirror"))
}

/// The entry of a registry; `prefix` is its location where it is not said.
fn entry(table: &Table, registry: &str) -> Option<Value> {
    let entries = table.get("registry")?.as_array()?;
    let named = |it: &&Value| {
        let prefix = it.get("prefix").or_else(|| it.get("location")).and_then(Value::as_str);
        prefix == Some(registry)
    };
    entries.iter().find(named).cloned()
}

fn table(file: &File) -> Result<Table, String> {
    let text = file.text.as_ref().map_err(|why| format!("cannot be read: {why}"))?;
    text.parse::<Table>().map_err(|error| format!("is no TOML: {}", error.message()))
}

/// Whether an address, with a scheme or without, is the mirror's.
fn is_at(text: &str, mirror: SocketAddr) -> bool {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let Ok(url) = Url::parse(&text) else { return false };
    let is_host = match url.host() {
        Some(url::Host::Ipv4(ip)) => IpAddr::from(ip) == mirror.ip(),
        Some(url::Host::Ipv6(ip)) => IpAddr::from(ip) == mirror.ip(),
        Some(url::Host::Domain(name)) => name == "localhost" && mirror.ip().is_loopback(),
        None => false,
    };
    is_host && url.port_or_known_default() == Some(mirror.port())
}

#[cfg(test)]
mod tests {
    use super::super::finding::State::{self, Fail, Ok as Good, Warn};
    use super::*;

    const MIRROR: &str = "127.0.0.1:65001";

    fn mirror() -> SocketAddr {
        MIRROR.parse().unwrap()
    }

    fn file(text: &str) -> File {
        File { path: "FILE".to_owned(), text: Ok(text.to_owned()) }
    }

    #[track_caller]
    fn check(found: &Finding, state: State, what: &str, fix: &str) {
        assert_eq!(found.state, state, "{found}");
        assert!(found.what.contains(what), "{what:?} in {found}");
        assert!(found.fix.as_deref().unwrap_or_default().contains(fix), "{fix:?} in {found}");
        assert_eq!(found.fix.is_none(), state == State::Ok, "{found}");
    }

    #[test]
    fn containerd_is_told_where_to_look() {
        let table = [
            (
                "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'",
                Good,
                "looks for hosts.toml",
                "",
            ),
            (
                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"",
                Good,
                "looks for hosts.toml",
                "",
            ),
            ("disabled_plugins = [\"cri\"]", Good, "CRI plugin is off", ""),
            ("version = 3", Warn, "sets no config_path", "systemctl restart containerd"),
            (
                "[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = ''",
                Warn,
                "sets no config_path",
                "config_path = \"/etc/containerd/certs.d\"",
            ),
            (
                "[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/docker/certs.d'",
                Fail,
                "not /etc/containerd/certs.d",
                "config_path",
            ),
            (
                "[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n\
                 [plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'docker.io']\nendpoint = []",
                Fail,
                "does not start",
                "registry.mirrors",
            ),
            ("version = ", Fail, "is no TOML", "mend it"),
        ];
        for (text, state, what, fix) in table {
            check(&judge_containerd(Some(&file(text))), state, what, fix);
        }
        check(&judge_containerd(None), Warn, "is not there", "config_path");
        let denied = File { path: "FILE".to_owned(), text: Err("Permission denied".to_owned()) };
        check(&judge_containerd(Some(&denied)), Fail, "Permission denied", "");
    }

    #[test]
    fn containerd_asks_the_mirror_for_each_registry() {
        let host = "[host.\"http://127.0.0.1:65001\"]\ncapabilities = [\"pull\", \"resolve\"]\n";
        let other = "[host.\"https://cache.example\"]\ncapabilities = [\"pull\"]\n";
        let table = [
            (format!("server = \"https://h.example\"\n{host}"), Good, "points at the mirror"),
            ("[host.\"http://localhost:65001\"]".to_owned(), Good, "points at the mirror"),
            (format!("{host}{other}"), Good, "points at the mirror"),
            (format!("{other}{host}"), Warn, "https://cache.example before the mirror"),
            (host.replace(", \"resolve\"", ""), Warn, "resolve tags"),
            (host.replace("\"pull\", ", ""), Fail, "serve pulls"),
            (host.replace("65001", "5000"), Fail, "names http://127.0.0.1:5000, and not the mirror"),
            (host.replace("http:", "https:"), Fail, "speaks plain HTTP"),
            (format!("server = \"http://127.0.0.1:65001\"\n{host}"), Fail, "as `server`"),
            ("server = \"https://h.example\"".to_owned(), Fail, "names no host"),
            ("[host".to_owned(), Fail, "is no TOML"),
        ];
        let judge = |file| judge_hosts(&Hosts { registry: "h.example".to_owned(), file }, mirror());
        for (text, state, what) in table {
            check(&judge(Some(file(&text))), state, what, "");
        }
        let missing = judge(None);
        check(
            &missing,
            Fail,
            "/etc/containerd/certs.d/h.example/hosts.toml is not there",
            "server = \"https://h.example\"",
        );
        let fix = missing.fix.unwrap();
        let (_, advised) = fix.split_once(":\n").unwrap();
        check(&judge(Some(file(advised))), Good, "points at the mirror", "");
    }

    #[test]
    fn containerd_looks_in_one_directory_after_the_other() {
        assert_eq!(directories("h.example"), ["h.example", "_default"]);
        assert_eq!(directories("h.example:5000"), ["h.example:5000", "h.example_5000_", "_default"]);
        assert_eq!(directories("*.example"), ["_default"]);
        let family = Hosts { registry: "*.example".to_owned(), file: None };
        let found = judge_hosts(&family, mirror());
        check(&found, Fail, "/etc/containerd/certs.d/_default/hosts.toml is not there", "[host.");
        assert!(!found.to_string().contains("server ="), "{found}");
    }

    #[test]
    fn docker_asks_the_mirror_for_docker_hub() {
        let good = "{\"registry-mirrors\": [\"http://127.0.0.1:65001/\"]}";
        let hub = Some("docker.io");
        let judge = |text: &str, default| judge_docker(Some(&file(text)), mirror(), default);
        check(&judge(good, hub), Good, "asks the mirror", "");
        check(&judge(good, Some("h.example")), Fail, "gets h.example there", "registry-1.docker.io");
        check(&judge(good, None), Warn, "refuses requests", "registry-1.docker.io");
        check(&judge(&good.replace("http:", "https:"), hub), Fail, "plain HTTP", "registry-mirrors");
        check(
            &judge("{\"registry-mirrors\": [\"http://10.0.0.1:65001\"]}", hub),
            Warn,
            "go past Shoal",
            "restart docker",
        );
        check(&judge("", hub), Warn, "go past Shoal", "restart docker");
        check(&judge("{,}", hub), Fail, "is no JSON", "mend it");
        check(
            &judge_docker(None, mirror(), hub),
            Warn,
            "/etc/docker/daemon.json does not name",
            "registry-mirrors",
        );
    }

    #[test]
    fn podman_asks_the_mirror_by_the_registrys_name() {
        let registry: RegistryName = "h.example".parse().unwrap();
        let judge = |texts: &[&str]| {
            let files: Vec<_> = texts.iter().map(|it| file(it)).collect();
            judge_podman(&files, &registry, mirror())
        };
        let missing = judge(&["unqualified-search-registries = [\"docker.io\"]"]);
        check(&missing, Warn, "no file names it", "registries.conf.d/shoal.conf");
        let fix = missing.fix.unwrap();
        let (_, good) = fix.split_once(":\n").unwrap();
        check(&judge(&[good]), Good, "points at the mirror", "");
        check(&judge(&[good, "[[registry]]\nlocation = \"h.example\""]), Warn, "names no mirror", "");
        check(&judge(&["[[registry]]\nlocation = \"h.example\"", good]), Good, "points at the mirror", "");
        check(&judge(&[&good.replace("insecure = true", "")]), Fail, "insecure = true", "");
        check(&judge(&[&good.replace("65001/h.example", "65001")]), Fail, "has to be", "");
        check(&judge(&["[[registry"]), Fail, "is no TOML", "mend it");
        let ported: RegistryName = "h.example:5000".parse().unwrap();
        let text = good.replace("h.example", "h.example:5000");
        check(&judge_podman(&[file(&text)], &ported, mirror()), Fail, "has a port", "without a port");
    }
}
