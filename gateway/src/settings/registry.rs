//! One entry of `registries`.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;

use globset::{GlobBuilder, GlobSet};
use shoal_model::TrustGroup;
use shoal_oci::RegistryName;
use shoal_ops::settings::{Reader, Secret, Setting};
use shoal_registry::Endpoint;
use url::Url;

use crate::credentials::Identity;
use crate::limits::LimitSettings;
use crate::mode::Mode;

const DEFAULT: &str = include_str!("../../config/registry.yaml");

/// What the gateway is told about one registry.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Its name, address and certificates.
    pub endpoint: Endpoint,
    /// Whose word about digests is believed for it.
    pub group: TrustGroup,
    /// Whose right decides.
    pub mode: Mode,
    /// What the gateway pulls with.
    pub identity: Identity,
    /// How much is asked of it.
    pub limits: LimitSettings,
}

/// Reads all entries, without those that have no usable name.
pub(super) fn read_all(reader: &Reader) -> Vec<RegistrySettings> {
    let mut seen = BTreeSet::new();
    let items = reader.list("registries", DEFAULT);
    items.iter().filter_map(|item| read(item, name(item, &mut seen)?)).collect()
}

fn read(item: &Reader, name: RegistryName) -> Option<RegistrySettings> {
    let group: Option<String> = item.optional("trustGroup");
    Some(RegistrySettings {
        group: TrustGroup::new(group.as_deref().unwrap_or(name.as_str())),
        endpoint: endpoint(item, name)?,
        mode: mode(item),
        identity: identity(item),
        limits: LimitSettings {
            bytes_per_second: item.optional("limits.bytesPerSecond"),
            requests_per_second: item.optional::<u32>("limits.requestsPerSecond").and_then(NonZeroU32::new),
            concurrent_blobs: item.get_in("limits.concurrentBlobs", 1..=10_000),
        },
    })
}

fn name(item: &Reader, seen: &mut BTreeSet<RegistryName>) -> Option<RegistryName> {
    let Some(Name(name)) = item.optional("name") else {
        item.required::<String>("name");
        return None;
    };
    if !seen.insert(name.clone()) {
        item.parse("name", unless_empty(|| Err("is configured twice".to_owned())));
    }
    Some(name)
}

fn endpoint(item: &Reader, name: RegistryName) -> Option<Endpoint> {
    // Every name makes a URL; one that did not would have no use.
    let mut endpoint = Endpoint::of(name).ok()?;
    if let Some(Address(url)) = item.optional("url") {
        endpoint.url = url;
    }
    endpoint.insecure = item.get("insecure");
    endpoint.ca = item.optional::<PathBuf>("ca");
    endpoint.redirect_hosts = item.values::<String>("redirectHosts").into_iter().collect();
    let token_hosts = item.values::<String>("credentials.tokenHosts");
    endpoint.token_hosts = token_hosts.iter().map(|it| it.to_ascii_lowercase()).collect();
    let fault = || endpoint.fault().map_or(Ok(()), |it| Err(it.to_owned()));
    item.parse("url", unless_empty(fault));
    Some(endpoint)
}

fn mode(item: &Reader) -> Mode {
    let mut set = GlobSet::builder();
    for Glob(glob) in item.values("credentials.repositories") {
        set.add(glob);
    }
    // Globs that are good one by one are good together.
    let repositories = set.build().unwrap_or_else(|_| GlobSet::empty());
    item.parse("credentials.mode", |text| match text {
        "client" => Ok(Mode::Client),
        "gateway" if repositories.is_empty() => Err("needs repositories that nodes may pull".to_owned()),
        "gateway" => Ok(Mode::Gateway { repositories: repositories.clone() }),
        _ => Err("is neither client nor gateway".to_owned()),
    })
}

fn identity(item: &Reader) -> Identity {
    let name: Option<String> = item.optional("credentials.username");
    let password: Option<Secret> = item.optional("credentials.password");
    match (name, password) {
        (Some(name), Some(password)) => return Identity::User { name, password },
        (None, None) => {}
        (Some(_), None) => {
            item.parse("credentials.username", unless_empty(|| Err("needs a password".to_owned())));
        }
        (None, Some(_)) => {
            item.required::<String>("credentials.username");
        }
    }
    Identity::Anonymous
}

/// A check that the empty default passes, as a check must.
fn unless_empty(check: impl Fn() -> Result<(), String>) -> impl Fn(&str) -> Result<(), String> {
    move |text| if text.is_empty() { Ok(()) } else { check() }
}

struct Name(RegistryName);

impl Setting for Name {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "is not a registry such as harbor.example.com:5000".to_owned())
    }
}

struct Address(Url);

impl Setting for Address {
    fn read(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err("holds a user or password: put them under credentials".to_owned());
        }
        Url::parse(text).map(Self).map_err(|_| "is not a URL such as https://harbor.example.com".to_owned())
    }

    fn shown(text: &str) -> String {
        if text.contains('@') { "…" } else { text }.to_owned()
    }
}

struct Glob(globset::Glob);

impl Setting for Glob {
    fn read(text: &str) -> Result<Self, String> {
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        glob.map(Self).map_err(|it| format!("is not a glob: {}", it.kind()))
    }
}
