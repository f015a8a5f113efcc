//! One entry of `registries`.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;

use globset::{GlobBuilder, GlobSet};
use jiff::tz::TimeZone;
use shoal_model::{ByteRate, TrustGroup};
use shoal_oci::RegistryName;
use shoal_ops::settings::{Reader, SecretSource, Setting};
use shoal_registry::{ClientCertificate, Endpoint};
use url::Url;

use super::access::{self, AccessSettings};
use crate::background::BackgroundSettings;
use crate::credentials::{AmazonSettings, Identity};
use crate::kind::{self, Kind};
use crate::limits::LimitSettings;
use crate::mode::Mode;
use crate::windows::{Window, Windows};

const DEFAULT: &str = include_str!("../../config/registry.yaml");

/// What the gateway is told about one registry.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Its name, address and certificates.
    pub endpoint: Endpoint,
    /// Whether it is read by way of the hub.
    pub is_behind_hub: bool,
    /// The product or service behind it.
    pub kind: Kind,
    /// Whose word about digests is believed for it.
    pub group: TrustGroup,
    /// Whose right decides.
    pub mode: Mode,
    /// What its clients may rely on.
    pub access: AccessSettings,
    /// What the gateway pulls with.
    pub identity: Identity,
    /// How much is asked of it.
    pub limits: LimitSettings,
    /// How blobs are seeded that nobody waits for yet.
    pub background: BackgroundSettings,
}

/// Reads all entries, without those that have no usable name.
pub(super) fn read_all(reader: &Reader) -> Vec<RegistrySettings> {
    let (mut names, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    let items = reader.list("registries", DEFAULT);
    items.iter().filter_map(|item| read(item, name(item, &mut names)?, &mut hosts)).collect()
}

/// `hosts`: the host names of the registries before.
fn read(item: &Reader, name: RegistryName, hosts: &mut BTreeSet<String>) -> Option<RegistrySettings> {
    let group: Option<String> = item.optional("trustGroup");
    let mut endpoint = endpoint(item, name)?;
    let (kind, is_behind_hub) = (kind(item, &endpoint), is_behind_hub(item));
    // The hub gives one connection so many answers at a time, of both lines and with some to spare.
    let most_blobs = if is_behind_hub { 100 } else { 10_000 };
    let limits = LimitSettings {
        bytes_per_second: item.optional("limits.bytesPerSecond").filter(|it: &ByteRate| it.0 > 0),
        requests_per_second: item.optional::<u32>("limits.requestsPerSecond").and_then(NonZeroU32::new),
        concurrent_blobs: item.get_in("limits.concurrentBlobs", 1..=most_blobs),
    };
    endpoint.is_metered = limits.bytes_per_second.is_some();
    Some(RegistrySettings {
        is_behind_hub,
        group: TrustGroup::new(group.as_deref().unwrap_or(endpoint.name.as_str())),
        kind,
        identity: identity(item, kind, &endpoint),
        endpoint,
        mode: mode(item),
        access: access::read(item, kind, hosts),
        limits,
        background: background(item),
    })
}

/// What leads to the registry itself is the hub's.
fn is_behind_hub(item: &Reader) -> bool {
    let is_behind_hub = item.parse("source", |text| match text {
        "registry" => Ok(false),
        "hub" => Ok(true),
        _ => Err("is neither registry nor hub".to_owned()),
    });
    if is_behind_hub {
        for key in ["url", "ca", "clientCert"] {
            mistake(item, key, "is the hub's to know, where source is hub");
        }
        if item.optional::<SecretSource>("credentials.username").is_some() {
            item.reject("credentials.username", "is the hub's to have, where source is hub");
        }
    }
    is_behind_hub
}

fn background(item: &Reader) -> BackgroundSettings {
    let windows = item.values("limits.background.windows").into_iter().map(|DailyWindow(it)| it).collect();
    let Zone(zone) = item.get("limits.background.timezone");
    BackgroundSettings {
        bytes_per_second: item.optional("limits.background.bytesPerSecond").filter(|it: &ByteRate| it.0 > 0),
        windows: Windows::new(windows, zone),
    }
}

fn name(item: &Reader, seen: &mut BTreeSet<RegistryName>) -> Option<RegistryName> {
    let Some(Name(name)) = item.optional("name") else {
        item.required::<String>("name");
        return None;
    };
    if !seen.insert(name.clone()) {
        mistake(item, "name", "is configured twice");
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
    endpoint.client_certificate = client_certificate(item);
    let hosts = |key| item.values::<String>(key).iter().map(|it| it.to_ascii_lowercase()).collect();
    endpoint.redirect_hosts = hosts("redirectHosts");
    endpoint.token_hosts = hosts("credentials.tokenHosts");
    if let Some(fault) = endpoint.fault() {
        mistake(item, "url", fault);
    }
    Some(endpoint)
}

fn client_certificate(item: &Reader) -> Option<ClientCertificate> {
    match (item.optional::<PathBuf>("clientCert"), item.optional::<PathBuf>("clientKey")) {
        (Some(chain), Some(key)) => return Some(ClientCertificate { chain, key }),
        (None, None) => {}
        (Some(_), None) => mistake(item, "clientCert", "needs a clientKey"),
        (None, Some(_)) => mistake(item, "clientKey", "needs a clientCert"),
    }
    None
}

fn kind(item: &Reader, endpoint: &Endpoint) -> Kind {
    // What a name stands for is known only where it is asked for: a proxy at another address may be anything.
    let implied = Endpoint::of(endpoint.name.clone()).ok();
    let is_there = implied.is_some_and(|it| it.url.host_str() == endpoint.url.host_str());
    item.parse("kind", |text| match text {
        "auto" if is_there => Ok(Kind::of(&endpoint.name)),
        "auto" => Ok(Kind::Oci),
        _ => {
            let named = Kind::NAMED.iter().find(|(name, _)| *name == text);
            named.map(|(_, kind)| *kind).ok_or_else(|| {
                let names = Kind::NAMED.map(|(name, _)| name).join(", ");
                format!("is none of auto, {names}")
            })
        }
    })
}

fn mode(item: &Reader) -> Mode {
    let repositories = globs(item, "credentials.repositories");
    item.parse("credentials.mode", |text| match text {
        "client" => Ok(Mode::Client),
        "gateway" if repositories.is_empty() => Err("needs repositories that nodes may pull".to_owned()),
        "gateway" => Ok(Mode::Gateway { repositories: repositories.clone() }),
        _ => Err("is neither client nor gateway".to_owned()),
    })
}

fn identity(item: &Reader, kind: Kind, endpoint: &Endpoint) -> Identity {
    let name: Option<SecretSource> = item.optional("credentials.username");
    let password: Option<SecretSource> = item.optional("credentials.password");
    let amazon = amazon(item, kind, endpoint);
    match (name, password) {
        (Some(_), _) | (_, Some(_)) if kind.is_amazon() => {
            // What stands there may be a password, and is not shown.
            item.reject(
                "credentials.password",
                "is none for this kind, nor is username: Amazon gives passwords to an AWS identity; kind oci \
                 takes any",
            );
        }
        (Some(name), Some(password)) => return Identity::User { name, password },
        (None, None) => return amazon.map_or(Identity::Anonymous, Identity::Amazon),
        (Some(_), None) => mistake(item, "credentials.username", "needs a password"),
        (None, Some(_)) => {
            item.required::<String>("credentials.username");
        }
    }
    Identity::Anonymous
}

/// Where Amazon gives a password for this registry, if it is one of Amazon's. The public gallery is read
/// without one unless its region is given.
fn amazon(item: &Reader, kind: Kind, endpoint: &Endpoint) -> Option<AmazonSettings> {
    let region: Option<String> = item.optional("credentials.aws.region");
    let service = item.optional("credentials.aws.endpoint").map(|Address(url)| url);
    if !kind.is_amazon() {
        for key in ["credentials.aws.region", "credentials.aws.endpoint"] {
            mistake(item, key, "is only for the kinds ecr and ecr-public");
        }
        return None;
    }
    if service.as_ref().is_some_and(|it| it.scheme() != "https" && !endpoint.insecure) {
        mistake(item, "credentials.aws.endpoint", "gives passwords in the clear: use https or set insecure");
    }
    let stated = kind::ecr_region(endpoint.name.as_str()).map(str::to_owned);
    let region = region.or(stated);
    if kind == Kind::Ecr && region.is_none() {
        item.required::<String>("credentials.aws.region");
    }
    Some(AmazonSettings { kind, region: region?, endpoint: service })
}

/// Notes that what was given at `key`, if anything, is wrong, and shows it: it must not be a secret.
pub(super) fn mistake(item: &Reader, key: &str, fault: &str) {
    // The empty default passes, as a default must.
    item.parse(key, |text| if text.is_empty() { Ok(()) } else { Err(fault.to_owned()) });
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

/// The globs of the list at `key`, each of which `*` stays within a component of, and `**` does not.
pub(super) fn globs(item: &Reader, key: &str) -> GlobSet {
    let mut set = GlobSet::builder();
    for Glob(glob) in item.values(key) {
        set.add(glob);
    }
    // Globs that are good one by one are good together.
    set.build().unwrap_or_else(|_| GlobSet::empty())
}

struct DailyWindow(Window);

impl Setting for DailyWindow {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

struct Zone(TimeZone);

impl Setting for Zone {
    fn read(text: &str) -> Result<Self, String> {
        let zone = TimeZone::get(text).map(Self);
        zone.map_err(|_| "is not a time zone such as UTC or Europe/Berlin".to_owned())
    }
}

struct Glob(globset::Glob);

impl Setting for Glob {
    fn read(text: &str) -> Result<Self, String> {
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        glob.map(Self).map_err(|it| format!("is not a glob: {}", it.kind()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entry: &str) -> (Option<RegistrySettings>, Reader) {
        let reader = Reader::new(&format!("registries: [{{{entry}}}]"), "registries: []", |_| None);
        (read_all(&reader).pop(), reader)
    }

    #[track_caller]
    fn good(entry: &str) -> RegistrySettings {
        let (settings, reader) = read(entry);
        reader.finish().unwrap();
        settings.unwrap()
    }

    #[track_caller]
    fn bad(entry: &str, mistake: &str) {
        let text = read(entry).1.finish().unwrap_err().to_string();
        assert!(text.contains(mistake), "{mistake:?} in {text:?}");
    }

    #[test]
    fn a_kind_is_told_by_the_name_or_by_the_operator() {
        assert_eq!(good("name: ghcr.io").kind, Kind::Ghcr);
        assert_eq!(good("name: ghcr.io, kind: oci").kind, Kind::Oci);
        assert_eq!(good("name: a.example, kind: harbor").kind, Kind::Harbor);
        assert_eq!(good("name: a.example, kind: distribution").kind, Kind::Distribution);
        bad("name: a.example, kind: nexus", "kind = \"nexus\" is none of auto, oci, distribution, harbor");
    }

    #[test]
    fn a_private_ecr_registry_takes_what_amazon_gives_in_its_region() {
        let amazon = |region: &str, endpoint: Option<&str>| {
            let endpoint = endpoint.map(|it| it.parse().unwrap());
            Identity::Amazon(AmazonSettings { kind: Kind::Ecr, region: region.to_owned(), endpoint })
        };
        let name = "name: 123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        assert_eq!(good(name).identity, amazon("eu-west-1", None));
        let private = good(&format!("{name}, credentials: {{aws: {{endpoint: 'https://vpce.example'}}}}"));
        assert_eq!(private.identity, amazon("eu-west-1", Some("https://vpce.example")));
        let renamed = "name: a.example, kind: ecr";
        let other = good(&format!("{renamed}, credentials: {{aws: {{region: eu-north-1}}}}"));
        assert_eq!(other.identity, amazon("eu-north-1", None));
        bad(renamed, "credentials.aws.region is missing");
        bad(&format!("{name}, credentials: {{username: AWS, password: x}}"), "is none for this kind");
        let plain = format!("{name}, credentials: {{aws: {{endpoint: 'http://vpce.example'}}}}");
        bad(&plain, "gives passwords in the clear");
        bad("name: a.example, credentials: {aws: {region: eu-west-1}}", "only for the kinds ecr");
    }

    #[test]
    fn the_public_gallery_is_read_anonymously_unless_a_region_is_given() {
        assert_eq!(good("name: public.ecr.aws").identity, Identity::Anonymous);
        let known = good("name: public.ecr.aws, credentials: {aws: {region: us-east-1}}");
        assert!(matches!(known.identity, Identity::Amazon(it) if it.kind == Kind::EcrPublic));
    }

    #[test]
    fn what_nobody_waits_for_has_its_rate_and_its_times() {
        let usual = good("name: a.example").background;
        assert_eq!(
            usual,
            BackgroundSettings { bytes_per_second: None, windows: Windows::new(vec![], TimeZone::UTC) }
        );
        let entry = |background: &str| format!("name: a.example, limits: {{background: {{{background}}}}}");
        let night = good(&entry("bytesPerSecond: 5Mi/s, windows: ['22:00-06:00'], timezone: Europe/Berlin"));
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(night.background.windows, Windows::new(vec!["22:00-06:00".parse().unwrap()], zone));
        assert_eq!(night.background.bytes_per_second.map(|it| it.0), Some(5 << 20));
        bad(&entry("windows: [night]"), "windows[0] = \"night\" is not of the form 22:00-06:00");
        bad(&entry("timezone: Mars"), "timezone = \"Mars\" is not a time zone");
    }

    #[test]
    fn a_client_certificate_needs_its_key() {
        let both = good("name: a.example, clientCert: /a/tls.crt, clientKey: /a/tls.key");
        assert_eq!(both.endpoint.client_certificate.unwrap().key, PathBuf::from("/a/tls.key"));
        bad("name: a.example, clientCert: /a/tls.crt", "clientCert = \"/a/tls.crt\" needs a clientKey");
        bad("name: a.example, clientKey: /a/tls.key", "clientKey = \"/a/tls.key\" needs a clientCert");
    }
}
