//! `explain`: what became of each blob of an image on this node, and where nothing was pulled, why that may be.
//!
//! Which blobs an image has its manifest says, which the mirror is asked for. What became of them the sidecar tells
//! (`/pulls.json`). Where there is no manifest to be had, what was pulled of the repository is told all the same.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shoal_oci::manifest::{Descriptor, Manifest};
use shoal_oci::{AnyDigest, Reference};

use crate::cli::{Explain, Reach};
use crate::doctor::finding::{Finding, State};
use crate::doctor::{hosts, runtimes};
use crate::fault::{Exit, Fault};
use crate::fleet::read;
use crate::image::{Image, Place};
use crate::node::{Node, refused};
use crate::run::Outcome;
use crate::settings::{NodeSettings, mirror, node};
use crate::table::{Table, bytes, plain, time};

/// How much of a digest is enough to know it again.
const SHORT: usize = 19;

/// What the sidecar tells of the latest requests for blobs.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Pulls {
    /// Seconds since 1970.
    started_at: u64,
    forgotten: u64,
    pulls: Vec<Pull>,
}

/// What became of one request for a blob.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct Pull {
    /// Seconds since 1970.
    at: u64,
    registry: String,
    repository: String,
    digest: String,
    client: String,
    outcome: String,
    supply: Option<String>,
    bytes: u64,
    fetched: Fetched,
    steps: Vec<String>,
    first_byte_millis: Option<u64>,
    millis: u64,
}

/// Bytes that the node fetched, by where they came from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct Fetched {
    from_rack: u64,
    from_zone: u64,
    from_elsewhere: u64,
    from_gateway: u64,
    from_registry: u64,
}

/// A blob of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blob {
    digest: String,
    /// In bytes; none where no manifest says it.
    size: Option<u64>,
}

/// What is known of why there was no pull.
struct Circumstances {
    registry: String,
    /// Whether the sidecar takes requests for that registry; none where its settings are not known.
    is_served: Option<bool>,
    /// How the runtimes are pointed at the mirror for it.
    wiring: Vec<Finding>,
    started_at: u64,
    forgotten: u64,
}

/// What is told of an image.
struct Explanation {
    image: String,
    /// Why the manifest says nothing of its blobs.
    unknown: Option<String>,
    /// Each blob, and what became of the requests for it, the latest first.
    blobs: Vec<(Blob, Vec<Pull>)>,
    /// Why there may have been none for some.
    reasons: Vec<String>,
}

/// Tells it.
///
/// # Errors
/// Where the sidecar tells nothing.
pub async fn explain(asked: &Explain, reach: &Reach) -> Result<Outcome, Fault> {
    let image = Image::parse(&asked.image)?;
    let settings = NodeSettings::load(&asked.on).ok();
    let node = Node::new(node(reach.node.as_ref(), settings.as_ref()))?;
    let pulls: Pulls = read(&node.document("/pulls.json").await?)?;
    let platform = asked.platform.clone().unwrap_or_else(own_platform);
    let mirror_of = Node::mirror(mirror(settings.as_ref()))?;
    let blobs = blobs(&mirror_of, &image, &platform).await;
    let circumstances = Circumstances {
        registry: image.place.registry.to_string(),
        is_served: settings.as_ref().map(|it| is_served(it, &image.place)),
        wiring: settings.as_ref().map(|it| wiring(it, asked, &image.place)).unwrap_or_default(),
        started_at: pulls.started_at,
        forgotten: pulls.forgotten,
    };
    let told = Explanation::new(&asked.image, &image.place, blobs, &pulls.pulls, &circumstances);
    Outcome::of(asked.shown.output, &told.document(), told.exit(), |_| Ok(told.show()))
}

/// The blobs of an image for a platform.
async fn blobs(mirror: &Node, image: &Image, platform: &str) -> Result<Vec<Blob>, Fault> {
    let Place { registry, repository } = &image.place;
    let unread =
        |why: &str| Fault::new(Exit::Failure, format!("{registry}/{repository}: {why}"), "look at it");
    let mut reference = image.reference.clone();
    // An index names manifests, which name blobs; there is nothing below that.
    for _ in 0..2 {
        let answer = mirror.manifest(&image.place, &reference).await?;
        if !answer.status.is_success() {
            return Err(refused(&image.place, &answer));
        }
        match Manifest::parse(&answer.body).map_err(|it| unread(&it.message))? {
            Manifest::Index { manifests } => {
                let found = pick(&manifests, platform);
                let digest =
                    found.ok_or_else(|| unread(&format!("has nothing for {platform}: give --platform")))?;
                reference = Reference::Digest(digest);
            }
            manifest @ Manifest::Image { .. } => return Ok(named(&manifest)),
        }
    }
    Err(unread("is an index of indexes"))
}

/// The manifest for `os/architecture` or `os/architecture/variant`.
fn pick(manifests: &[Descriptor], platform: &str) -> Option<AnyDigest> {
    let mut parts = platform.splitn(3, '/');
    let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next());
    let is_meant = |it: &&Descriptor| {
        let Some(its) = &it.platform else { return false };
        its.os == os
            && its.architecture == architecture
            && variant.is_none_or(|it| its.variant.as_deref() == Some(it))
    };
    manifests.iter().find(is_meant).map(|it| it.digest.clone())
}

/// The blobs that a manifest names, each once.
fn named(manifest: &Manifest) -> Vec<Blob> {
    let mut blobs: Vec<Blob> = Vec::new();
    for it in manifest.blobs().filter(|it| !it.is_foreign()) {
        let blob = Blob { digest: it.digest.to_string(), size: Some(it.size) };
        if !blobs.contains(&blob) {
            blobs.push(blob);
        }
    }
    blobs
}

/// What this machine runs, in the words of images.
fn own_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

fn is_served(settings: &NodeSettings, place: &Place) -> bool {
    let proxy = &settings.sidecar.proxy;
    let mut rules = proxy.registries.iter().chain(&proxy.default);
    !proxy.dynamic || rules.any(|it| it.names.include(&place.registry))
}

/// What `doctor` finds about the runtimes that are pointed at the mirror by directories.
fn wiring(settings: &NodeSettings, asked: &Explain, place: &Place) -> Vec<Finding> {
    let has_containerd = crate::settings::below(&asked.on.root, "/etc/containerd".as_ref()).is_dir();
    let hosts = has_containerd.then(|| hosts(&asked.on.root, place.registry.as_str()));
    hosts.iter().map(|it| runtimes::judge_hosts(it, mirror(Some(settings)))).collect()
}

/// Why nothing may have been pulled, the certain before the possible.
fn reasons(seen: &Circumstances) -> Vec<String> {
    let Circumstances { registry, is_served, wiring, started_at, forgotten } = seen;
    let mut reasons = Vec::new();
    if *is_served == Some(false) {
        reasons.push(format!(
            "the sidecar refuses requests for {registry}, so runtimes go past it: add {{name: {registry}}} to \
             proxy.registries"
        ));
    }
    let wrong = wiring.iter().filter(|it| it.state != State::Ok);
    reasons.extend(
        wrong.map(|it| format!("{}: {}; `shoalctl doctor` says how to mend it", it.subject, it.what)),
    );
    if *forgotten > 0 {
        reasons
            .push(format!("the sidecar remembers the latest requests only, and has forgotten {forgotten}"));
    }
    reasons.push(format!("it was pulled before the sidecar started at {}", moment(*started_at)));
    reasons.push("the runtime had it already: it asks for no layer that it has".to_owned());
    reasons
}

impl Explanation {
    fn new(
        image: &str,
        place: &Place,
        blobs: Result<Vec<Blob>, Fault>,
        pulls: &[Pull],
        seen: &Circumstances,
    ) -> Self {
        let unknown = blobs.as_ref().err().map(|it| it.what.clone());
        let blobs = blobs.unwrap_or_else(|_| pulled_of(place, pulls));
        let of =
            |blob: &Blob| pulls.iter().filter(|it| it.digest == blob.digest).cloned().collect::<Vec<_>>();
        let blobs: Vec<_> = blobs.into_iter().map(|it| (it.clone(), of(&it))).collect();
        let all_were = !blobs.is_empty() && blobs.iter().all(|(_, pulls)| !pulls.is_empty());
        let reasons = if all_were { Vec::new() } else { reasons(seen) };
        Self { image: image.to_owned(), unknown, blobs, reasons }
    }

    /// Whether there is anything to tell.
    fn exit(&self) -> Exit {
        let is_told = self.blobs.iter().any(|(_, pulls)| !pulls.is_empty());
        if is_told { Exit::Done } else { Exit::NotFound }
    }

    fn document(&self) -> Value {
        let blob = |(blob, pulls): &(Blob, Vec<Pull>)| json!({ "digest": blob.digest, "size": blob.size, "pulls": pulls });
        json!({
            "image": self.image,
            "manifestFault": self.unknown,
            "blobs": self.blobs.iter().map(blob).collect::<Vec<_>>(),
            "reasons": self.reasons,
        })
    }

    fn show(&self) -> String {
        let columns =
            ["BLOB", "SIZE", "AT", "OUTCOME", "SUPPLY", "FETCHED", "STEPS", "FIRST BYTE", "TIME", "CLIENT"];
        let mut table = Table::new(&columns);
        for (blob, pulls) in &self.blobs {
            let short: String = blob.digest.chars().take(SHORT).collect();
            let size = blob.size.map(bytes).unwrap_or_default();
            if pulls.is_empty() {
                table.row([short.clone(), size.clone(), String::new(), "no pull".to_owned()]);
            }
            for pull in pulls {
                table.row([short.clone(), size.clone()].into_iter().chain(pull.cells()));
            }
        }
        let mut text = String::new();
        if let Some(unknown) = &self.unknown {
            // Writing to a text cannot fail.
            let _ = writeln!(
                text,
                "its manifest is not known, so this is what was pulled of the repository: {}",
                plain(unknown)
            );
        }
        text += &table.to_string();
        if !self.reasons.is_empty() {
            text += "where there was no pull, that may be because\n";
        }
        for reason in &self.reasons {
            let _ = writeln!(text, "- {}", plain(reason));
        }
        text
    }
}

/// The blobs that were asked for in a repository, each once.
fn pulled_of(place: &Place, pulls: &[Pull]) -> Vec<Blob> {
    let mut blobs: Vec<Blob> = Vec::new();
    let is_of =
        |it: &&Pull| it.registry == place.registry.as_str() && it.repository == place.repository.as_str();
    for pull in pulls.iter().filter(is_of) {
        let blob = Blob { digest: pull.digest.clone(), size: None };
        if !blobs.contains(&blob) {
            blobs.push(blob);
        }
    }
    blobs
}

impl Pull {
    /// What stands right of the blob.
    fn cells(&self) -> [String; 8] {
        let millis = |it: u64| time(Duration::from_millis(it));
        [
            moment(self.at),
            format!("{}, {}", self.outcome, bytes(self.bytes)),
            self.supply.clone().unwrap_or_default(),
            self.fetched.line(),
            self.steps.join(" "),
            self.first_byte_millis.map(millis).unwrap_or_default(),
            millis(self.millis),
            self.client.clone(),
        ]
    }
}

impl Fetched {
    /// From where how much came, the nearest first.
    fn line(&self) -> String {
        let Self { from_rack, from_zone, from_elsewhere, from_gateway, from_registry } = *self;
        let all = [
            (from_rack, "rack"),
            (from_zone, "zone"),
            (from_elsewhere, "elsewhere"),
            (from_gateway, "gateway"),
            (from_registry, "registry"),
        ];
        let some = all.into_iter().filter(|(n_bytes, _)| *n_bytes > 0);
        some.map(|(n_bytes, whence)| format!("{whence} {}", bytes(n_bytes))).collect::<Vec<_>>().join(", ")
    }
}

/// A moment in seconds since 1970, as people read it.
fn moment(at: u64) -> String {
    // Years of more than four digits are no sidecar's.
    let at = UNIX_EPOCH + Duration::from_secs(at.min(253_402_300_799));
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> String {
        format!("sha256:{}", format!("{byte:02x}").repeat(32))
    }

    fn place() -> Place {
        Place::parse("h.example/a/b").unwrap()
    }

    fn pull(byte: u8, repository: &str) -> Pull {
        Pull {
            at: 1_795_691_042,
            registry: "h.example".to_owned(),
            repository: repository.to_owned(),
            digest: digest(byte),
            client: "containerd/2.1".to_owned(),
            outcome: "complete".to_owned(),
            supply: Some("swarm".to_owned()),
            bytes: 100,
            fetched: Fetched { from_rack: 60, from_gateway: 40, ..Fetched::default() },
            steps: vec!["gateway".to_owned()],
            first_byte_millis: Some(12),
            millis: 1340,
        }
    }

    fn seen() -> Circumstances {
        Circumstances {
            registry: "h.example".to_owned(),
            is_served: Some(true),
            wiring: vec![Finding::ok("containerd, h.example", "points at the mirror")],
            started_at: 1_795_691_000,
            forgotten: 0,
        }
    }

    fn blob(byte: u8) -> Blob {
        Blob { digest: digest(byte), size: Some(100) }
    }

    #[test]
    fn each_blob_is_told_of_with_what_became_of_it() {
        let pulls = [pull(1, "a/b"), pull(3, "other")];
        let told =
            Explanation::new("h.example/a/b:v1", &place(), Ok(vec![blob(1), blob(2)]), &pulls, &seen());
        let text = told.show();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "sha256:010101010101  100 B  2026-11-26T11:04:02Z  complete, 100 B  swarm   rack 60 B, gateway 40 B  \
             gateway  12 ms       1.3 s  containerd/2.1"
        );
        assert_eq!(lines[2], "sha256:020202020202  100 B  -                     no pull");
        assert_eq!(told.exit(), Exit::Done);
        assert!(text.contains("had it already") && !text.contains("other"), "{text}");
        let document = told.document();
        assert_eq!(document["blobs"][0]["pulls"][0]["supply"], "swarm");
        assert_eq!(document["blobs"][1]["pulls"], json!([]));

        let all = Explanation::new("x", &place(), Ok(vec![blob(1)]), &pulls, &seen());
        assert_eq!(all.reasons, [""; 0], "there is nothing to explain");
        let none = Explanation::new("x", &place(), Ok(vec![blob(9)]), &pulls, &seen());
        assert_eq!(none.exit(), Exit::NotFound);
    }

    #[test]
    fn without_a_manifest_the_repository_is_told_of() {
        let refused = Fault::new(Exit::Refused, "h.example/a/b: the mirror says 401: no", "log in");
        let pulls = [pull(1, "a/b"), pull(1, "a/b"), pull(3, "other")];
        let told = Explanation::new("h.example/a/b:v1", &place(), Err(refused), &pulls, &seen());
        let text = told.show();
        assert!(
            text.starts_with("its manifest is not known") && text.contains("the mirror says 401"),
            "{text}"
        );
        assert_eq!(text.matches("sha256:0101").count(), 2, "{text}");
        assert!(!text.contains("sha256:0303"), "{text}");
    }

    #[test]
    fn why_nothing_was_pulled_is_told_the_certain_first() {
        let check = |seen: &Circumstances, first: &str| {
            let reasons = reasons(seen);
            assert!(reasons[0].contains(first), "{first:?} in {reasons:?}");
        };
        check(&seen(), "before the sidecar started at 2026-11-26T11:03:20Z");
        check(
            &Circumstances { is_served: Some(false), ..seen() },
            "add {name: h.example} to proxy.registries",
        );
        check(&Circumstances { forgotten: 7, ..seen() }, "has forgotten 7");
        let wiring = vec![Finding::fail("containerd, h.example", "hosts.toml is not there", "write it")];
        check(
            &Circumstances { wiring, ..seen() },
            "containerd, h.example: hosts.toml is not there; `shoalctl doctor`",
        );
    }

    #[test]
    fn of_an_index_the_nodes_own_platform_is_meant() {
        let item = |byte: u8, platform: &str| {
            format!(r#"{{"digest": "{}", "size": 1, "platform": {platform}}}"#, digest(byte))
        };
        let items = [
            item(1, r#"{"os": "linux", "architecture": "amd64"}"#),
            item(2, r#"{"os": "linux", "architecture": "arm64", "variant": "v8"}"#),
            item(3, r#"{"os": "windows", "architecture": "amd64"}"#),
        ];
        let text = format!(r#"{{"schemaVersion": 2, "manifests": [{}]}}"#, items.join(","));
        let Ok(Manifest::Index { manifests }) = Manifest::parse(text.as_bytes()) else { panic!("an index") };
        let found = |platform: &str| pick(&manifests, platform).map(|it| it.to_string());
        assert_eq!(found("linux/amd64"), Some(digest(1)));
        assert_eq!(found("linux/arm64"), Some(digest(2)));
        assert_eq!(found("linux/arm64/v8"), Some(digest(2)));
        assert_eq!([found("linux/arm64/v7"), found("linux"), found("linux/s390x")], [None, None, None]);
    }
}
