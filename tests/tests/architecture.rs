//! The architecture as executable rules: which crate may depend on which, what pure crates may not touch,
//! and what every crate says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// The arrows: each crate and the crates of ours it may depend on.
/// services -> peer -> identity, blobstore, proto, ops, registry -> swarm, oci -> model.
const ARROWS: [(&str, &[&str]); 17] = [
    ("shoal-model", &[]),
    ("shoal-pagecache", &[]),
    ("shoal-oci", &["shoal-model"]),
    ("shoal-swarm", &["shoal-model"]),
    // It can only simulate what the swarm's own code decides.
    ("shoal-simulator", &["shoal-swarm", "shoal-model"]),
    ("shoal-blobstore", &["shoal-swarm", "shoal-oci", "shoal-model", "shoal-pagecache"]),
    ("shoal-proto", &["shoal-swarm", "shoal-oci", "shoal-model"]),
    ("shoal-ops", &["shoal-oci", "shoal-model"]),
    ("shoal-registry", &["shoal-oci", "shoal-model"]),
    ("shoal-identity", &["shoal-proto", "shoal-ops", "shoal-swarm", "shoal-oci", "shoal-model"]),
    (
        "shoal-peer",
        &[
            "shoal-identity",
            "shoal-blobstore",
            "shoal-proto",
            "shoal-ops",
            "shoal-swarm",
            "shoal-oci",
            "shoal-model",
        ],
    ),
    ("shoal-gateway", SERVICE),
    ("shoal-scheduler", SERVICE),
    ("shoal-sidecar", SERVICE),
    ("shoal-ask", &[]),
    // It meets the gateway over HTTP only, as Harbor does.
    ("shoal-harbor", &["shoal-ask", "shoal-ops"]),
    // It meets all services over HTTP only; of the sidecar it takes the reader of its settings.
    ("shoalctl", &["shoal-ask", "shoal-ops", "shoal-oci", "shoal-model", "shoal-sidecar"]),
];

const SERVICE: &[&str] = &[
    "shoal-peer",
    "shoal-identity",
    "shoal-blobstore",
    "shoal-proto",
    "shoal-ops",
    "shoal-registry",
    "shoal-swarm",
    "shoal-oci",
    "shoal-model",
];

/// Developer tools stand outside the product and may use anything.
const TOOLS: [&str; 3] = ["shoal-fuzz", "shoal-tests", "xtask"];

/// Pure crates and what they may use from others: libraries that only turn values into values.
const PURE: [&str; 4] = ["shoal-model", "shoal-oci", "shoal-swarm", "shoal-simulator"];
const PURE_LIBRARIES: [&str; 6] = ["hex", "percent-encoding", "serde", "serde_json", "slab", "thiserror"];

/// What pure code never says. (Addresses as values, `std::net::IpAddr`, are pure; sockets are not.)
const IMPURE: [&str; 11] = [
    "HashMap",
    "HashSet",
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "rand::",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

fn metadata() -> Metadata {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo prints its metadata")
}

impl Package {
    /// Normal dependencies; those of tests and build scripts do not ship.
    fn dependencies(&self, ours: bool) -> impl Iterator<Item = &str> {
        let normal = self.dependencies.iter().filter(|it| it.kind.is_none());
        normal.filter(move |it| it.path.is_some() == ours).map(|it| it.name.as_str())
    }

    fn lib(&self) -> Option<&Path> {
        let lib = self.targets.iter().find(|it| it.kind.iter().any(|kind| kind == "lib"))?;
        Some(&lib.src_path)
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory, but for what git and cargo keep there.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let wanted =
        entries.filter(|it| ![".git", "target"].contains(&it.file_name().to_string_lossy().as_ref()));
    wanted.flat_map(|it| if it.path().is_dir() { files_below(&it.path()) } else { vec![it.path()] }).collect()
}

#[test]
fn dependencies_follow_the_arrows() {
    let arrows: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let mut wrong = Vec::new();
    for package in metadata().packages {
        if TOOLS.contains(&package.name.as_str()) {
            continue;
        }
        let allowed = arrows.get(package.name.as_str()).copied();
        let allowed = allowed.unwrap_or_else(|| panic!("{} has no place in the architecture", package.name));
        let against = package.dependencies(true).filter(|it| !allowed.contains(it));
        wrong.extend(against.map(|it| format!("{} -> {it}", package.name)));
    }
    assert!(wrong.is_empty(), "against the arrows: {wrong:?}");
}

#[test]
fn every_crate_of_the_architecture_exists() {
    let packages: BTreeSet<_> = metadata().packages.into_iter().map(|it| it.name).collect();
    let missing: Vec<_> = ARROWS.iter().filter(|(name, _)| !packages.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn pure_crates_use_pure_libraries_only() {
    let mut wrong = Vec::new();
    for package in metadata().packages.iter().filter(|it| PURE.contains(&it.name.as_str())) {
        let impure = package.dependencies(false).filter(|it| !PURE_LIBRARIES.contains(it));
        wrong.extend(impure.map(|it| format!("{} -> {it}", package.name)));
    }
    assert!(wrong.is_empty(), "not on the list of pure libraries: {wrong:?}");
}

#[test]
fn pure_crates_touch_no_clock_file_socket_or_unordered_map() {
    let mut wrong = Vec::new();
    for package in metadata().packages.iter().filter(|it| PURE.contains(&it.name.as_str())) {
        let src = package.lib().and_then(Path::parent).expect("pure crates are libraries");
        for file in files_below(src) {
            let text = read(&file);
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code = product.lines().map(|line| line.split("//").next().unwrap_or_default());
            for (number, line) in code.enumerate() {
                let found = IMPURE.iter().filter(|it| line.contains(*it));
                wrong.extend(found.map(|it| format!("{}:{}: {it}", file.display(), number + 1)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_says_what_it_knows_nothing_of() {
    let packages = metadata().packages;
    let libs = packages.iter().filter_map(Package::lib);
    let silent: Vec<_> = libs.filter(|it| !read(it).contains("\n//! Knows nothing of: ")).collect();
    assert!(silent.is_empty(), "no \"Knows nothing of:\" line: {silent:#?}");
}

/// A promise that names a test stands and falls with it.
#[test]
fn every_test_that_a_document_names_exists() {
    let root = metadata().workspace_root;
    let mut wrong = Vec::new();
    let mut n_named = 0;
    let documents = ["SECURITY.md", "RELIABILITY.md"].map(|it| read(&root.join(it)));
    let text = documents.join("\n");
    // `path/to/file.rs` `name_of_a_test`, `another_one`: each name is one of the file before it.
    let mut file = None;
    for code in text.split('`').skip(1).step_by(2) {
        let is_name = code.contains('_')
            && code.chars().all(|it| it.is_ascii_lowercase() || it == '_' || it.is_ascii_digit());
        if code.ends_with(".rs") && code.contains('/') && !code.contains('{') {
            let source = std::fs::read_to_string(root.join(code)).unwrap_or_default();
            if source.is_empty() {
                wrong.push(format!("{code}: no such file"));
            }
            file = Some((code, source));
        } else if is_name && code.matches('_').count() > 2 && !code.starts_with("shoal_") {
            n_named += 1;
            let is_there = file.as_ref().is_some_and(|(_, source)| source.contains(&format!("fn {code}(")));
            if !is_there {
                wrong.push(format!("{code} in {:?}", file.as_ref().map(|it| it.0)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(n_named > 50, "only {n_named} tests are named");
}

#[test]
fn no_file_names_a_path_of_a_developers_machine() {
    // Put together here, so that this file does not name one.
    let private = ["work", "root", "home"].map(|it| format!("/{it}/"));
    let root = metadata().workspace_root;
    let mut wrong = Vec::new();
    for file in files_below(&root) {
        // What is no text holds no path that anybody reads.
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            // A path begins a word: `docs/work/` is fine.
            let begins_a_word =
                |at: usize| !line[..at].ends_with(|it: char| it.is_alphanumeric() || "_.-}".contains(it));
            let found = private.iter().any(|it| line.match_indices(it).any(|(at, _)| begins_a_word(at)));
            if found {
                wrong.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
