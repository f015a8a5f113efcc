//! The sidecar's settings; `config/default.yaml` documents them and holds the defaults.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobMatcher};
use regex::RegexSet;
use shoal_blobstore::StoreSettings;
use shoal_identity::settings::Source;
use shoal_model::{ByteRate, Node, NodeId, Place, Role};
use shoal_oci::RegistryName;
use shoal_ops::settings::{Reader, Setting};
use url::Url;

/// The commented default settings.
pub const DEFAULT: &str = include_str!("../config/default.yaml");
/// The keys of one item of `proxy.registries`.
const REGISTRY: &str = include_str!("../config/registry.yaml");
/// The keys of one item of `proxy.proxies`.
const RULE: &str = "regx: \"\"";

/// What the sidecar is told by its operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the node's certificate comes from.
    pub security: Source,
    /// The gateways' addresses, `https://host:port`.
    pub gateways: Vec<String>,
    /// The node as the others are to see it; its name is the certificate's, where it has one.
    pub node: Node,
    /// Where other nodes ask for pieces.
    pub peer_listen: SocketAddr,
    /// Pieces sent at the same time.
    pub upload_slots: usize,
    /// Pieces of one blob asked at the same time.
    pub download_slots: usize,
    /// What this node takes in all; `None` without a limit.
    pub total_rate: Option<ByteRate>,
    /// What this node takes from any other; `None` without a limit.
    pub per_peer_rate: Option<ByteRate>,
    /// Where runtimes ask.
    pub proxy: ProxySettings,
    /// Where blobs are kept.
    pub storage: StoreSettings,
}

/// Which requests are taken, and what becomes of them.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Where runtimes ask.
    pub listen: SocketAddr,
    /// Within what time they are answered.
    pub answer_within: Duration,
    /// Whether requests choose their registry.
    pub dynamic: bool,
    /// The registry of requests that name none.
    pub default: Option<RegistryRule>,
    /// The registries that may be named.
    pub registries: Vec<RegistryRule>,
    /// Which paths go into the swarm.
    pub swarmed: RegexSet,
}

/// A registry that may be asked, or a family of them.
#[derive(Clone, Debug)]
pub struct RegistryRule {
    /// The names that it is for.
    pub names: Names,
    /// Where it is; `None` where the name says it.
    pub url: Option<Url>,
    /// A file of certificates to trust.
    pub ca: Option<PathBuf>,
    /// Plain HTTP or an unverified certificate is accepted.
    pub insecure: bool,
}

impl Settings {
    /// Reads them; mistakes are kept by the reader.
    pub fn read(reader: &Reader) -> Self {
        let (node, peer_listen) = node(reader);
        let dir: PathBuf = reader.get("storage.dir");
        let security = Source::read(reader, dir.join("identity"));
        Self {
            gateways: security.gateways(reader),
            security,
            node,
            peer_listen,
            upload_slots: reader.get_in("upload.concurrentPieceCount", 1..=4096_usize),
            download_slots: reader.get_in("download.concurrentPieceCount", 1..=256_usize),
            total_rate: limit(reader.get("download.totalRateLimit")),
            per_peer_rate: limit(reader.get("download.perPeerRateLimit")),
            proxy: ProxySettings::read(reader),
            storage: StoreSettings {
                dir,
                capacity: reader.get("storage.diskGCThreshold"),
                low_percent: reader.get_in("storage.diskGCThresholdPercent", 1..=100_u16) as u8,
                free_floor: reader.get("storage.freeSpaceFloor"),
                expire_after: reader.get("storage.taskExpireTime"),
            },
        }
    }
}

impl ProxySettings {
    fn read(reader: &Reader) -> Self {
        let patterns: Vec<_> = reader
            .list("proxy.proxies", RULE)
            .iter()
            .map(|it| {
                it.parse("regx", |text| {
                    regex::Regex::new(text).map_err(|_| "is not a regular expression".into())
                })
            })
            .map(|it: regex::Regex| it.as_str().to_owned())
            .collect();
        Self {
            listen: reader.get("proxy.listen"),
            answer_within: reader
                .get_in("proxy.answerWithin", Duration::from_millis(100)..=Duration::from_secs(60)),
            dynamic: reader.get("proxy.registryMirror.dynamic"),
            default: default_registry(reader),
            registries: reader.list("proxy.registries", REGISTRY).iter().map(RegistryRule::read).collect(),
            swarmed: RegexSet::new(patterns).unwrap_or_else(|_| {
                // Each is good, so it is their number or length.
                reader.reject("proxy.proxies", "is too much in one: give fewer or shorter expressions");
                RegexSet::empty()
            }),
        }
    }
}

impl RegistryRule {
    fn read(reader: &Reader) -> Self {
        Self {
            names: reader.required("name"),
            url: reader.parse("url", |text| match text {
                "" => Ok(None),
                text => url(text).map(Some),
            }),
            ca: reader.optional("ca"),
            insecure: reader.get("insecure"),
        }
    }
}

/// A registry's name, or a pattern for those of a family.
#[derive(Clone, Debug)]
pub struct Names {
    written: String,
    matcher: GlobMatcher,
}

impl Names {
    /// Whether this registry is meant.
    pub fn include(&self, name: &RegistryName) -> bool {
        self.matcher.is_match(name.as_str())
    }

    /// As they are written, a single name in its normal form.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl Setting for Names {
    fn read(text: &str) -> Result<Self, String> {
        // A name without a star is a name: it is brought to its normal form, so that every alias matches, and
        // the brackets of an IPv6 address are no pattern.
        let (written, pattern) = match text.parse::<RegistryName>() {
            Ok(name) => (name.to_string(), globset::escape(name.as_str())),
            Err(_) => (text.to_lowercase(), text.to_lowercase()),
        };
        let glob = Glob::new(&pattern).map_err(|_| "is not a registry's name")?;
        Ok(Self { written, matcher: glob.compile_matcher() })
    }
}

fn default_registry(reader: &Reader) -> Option<RegistryRule> {
    let url = reader.parse("proxy.registryMirror.url", |text| match text {
        "" => Ok(None),
        text => url(text).map(Some),
    });
    let insecure = reader.get("proxy.registryMirror.insecure");
    url.and_then(|url| {
        let host = url.host_str()?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let name: RegistryName = host.parse().ok()?;
        Some(RegistryRule { names: Names::read(name.as_str()).ok()?, url: Some(url), ca: None, insecure })
    })
}

fn url(text: &str) -> Result<Url, String> {
    Url::parse(text)
        .ok()
        .filter(|it| matches!(it.scheme(), "http" | "https") && it.has_host())
        .ok_or_else(|| "is not a URL such as https://registry.example.com".into())
}

fn limit(rate: ByteRate) -> Option<ByteRate> {
    (rate.0 > 0).then_some(rate)
}

/// The node, and where it listens to others.
fn node(reader: &Reader) -> (Node, SocketAddr) {
    let id: String = reader.get("node.id");
    let host = || nix::unistd::gethostname().ok()?.into_string().ok();
    let id = if id.is_empty() { host().unwrap_or_else(|| "unnamed".into()) } else { id };
    let ip: Option<IpAddr> = reader.parse("advertiseIP", |text| match text {
        "" => Ok(None),
        text => text.parse::<IpAddr>().map(Some).map_err(|_| "is not an IP address".into()),
    });
    let listen = reader.parse("peer.listen", |text| {
        let listen = SocketAddr::read(text)?;
        if listen.ip().is_unspecified() && ip.is_none() {
            return Err("is every address of the node: set advertiseIP to the one that others reach".into());
        }
        Ok(listen)
    });
    let text = |key| Arc::from(reader.get::<String>(key));
    let node = Node {
        id: NodeId::new(&id),
        address: SocketAddr::new(ip.unwrap_or(listen.ip()), listen.port()).to_string().into(),
        role: Role::Sidecar,
        place: Place { zone: text("node.zone"), rack: text("node.rack") },
    };
    (node, listen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_ops::program::KEYS;

    /// Reads settings of a node whose certificate is no matter; `user` is a group in braces or lines.
    fn read(user: &str) -> (Settings, Reader) {
        let token = format!("shoal-join.{}.{}", "0".repeat(64), "A".repeat(43));
        let user = match user.strip_prefix('{') {
            Some(rest) => format!("{{security: {{joinToken: {token}}}, {rest}"),
            None => format!("security: {{joinToken: {token}}}\n{user}"),
        };
        let reader = Reader::new(&user, DEFAULT, |_| None);
        (Settings::read(&reader), reader)
    }

    #[test]
    fn every_default_is_allowed_and_read() {
        let (settings, reader) = read("");
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(reader.unread_keys(), KEYS, "read by the program that all services share");
        assert!(settings.proxy.default.is_some_and(|it| it.names.as_str() == "docker.io"));
        assert!(settings.proxy.swarmed.is_match("/v2/a/blobs/sha256:0"));
        assert!(settings.proxy.listen.ip().is_loopback() && settings.peer_listen.ip().is_loopback());
    }

    #[test]
    fn expressions_that_are_too_much_together_are_a_mistake() {
        let finish = |n_rules: usize| {
            let rules = vec!["{regx: 'a{20000}'}"; n_rules].join(", ");
            read(&format!("{{proxy: {{proxies: [{rules}]}}}}")).1.finish()
        };
        assert_eq!(finish(1), Ok(()));
        let text = finish(20).unwrap_err().to_string();
        assert!(text.contains("proxy.proxies is too much in one"), "{text}");
    }

    #[test]
    fn registries_are_names_or_families() {
        let (settings, reader) = read(
            "proxy: {registries: [{name: Harbor.example.com}, {name: '*.corp', url: 'http://10.0.0.1:5000', insecure: true}, {name: '[::1]:5000'}]}",
        );
        assert_eq!(reader.finish(), Ok(()));
        let matches = |name: &str| {
            let name = name.parse().unwrap();
            settings.proxy.registries.iter().position(|it| it.names.include(&name))
        };
        assert_eq!(matches("harbor.example.com"), Some(0));
        assert_eq!(matches("a.corp"), Some(1));
        assert_eq!(matches("corp.example"), None);
        assert_eq!(matches("[::1]:5000"), Some(2));
    }

    #[test]
    fn an_address_that_stands_for_all_needs_one_to_advertise() {
        for listen in ["0.0.0.0:65002", "[::]:65002"] {
            let (_, reader) = read(&format!("peer: {{listen: '{listen}'}}"));
            let text = reader.finish().unwrap_err().to_string();
            assert!(text.contains(&format!("peer.listen = {listen:?} is every address")), "{text}");
            assert!(text.contains("set advertiseIP"), "{text}");
            let (settings, reader) =
                read(&format!("{{peer: {{listen: '{listen}'}}, advertiseIP: 10.0.0.7}}"));
            assert_eq!(reader.finish(), Ok(()));
            assert_eq!(&*settings.node.address, "10.0.0.7:65002");
        }
    }

    #[test]
    fn mistakes_name_key_value_and_what_is_allowed() {
        let (_, reader) = read(
            "{gateways: [ftp://x], advertiseIP: here, download: {concurrentPieceCount: 0, totalRateLimit: much}, \
             proxy: {proxies: [{regx: '('}], registries: [{url: x}]}}",
        );
        let text = reader.finish().unwrap_err().to_string();
        for part in [
            "gateways[0] = \"ftp://x\" is not",
            "advertiseIP = \"here\" is not an IP address",
            "download.concurrentPieceCount = \"0\" is not from 1 to 256",
            "download.totalRateLimit = \"much\" is not a rate",
            "proxy.proxies[0].regx = \"(\" is not a regular expression",
            "proxy.registries[0].name is missing",
            "proxy.registries[0].url = \"x\" is not a URL",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
