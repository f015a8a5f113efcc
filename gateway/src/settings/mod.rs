//! The gateway's settings; `config/default.yaml` and `config/registry.yaml` document them and hold the
//! defaults.
//!
//! What cannot work together is a mistake at the start, like any value that cannot be right: an address
//! that no node could dial, gateway mode without repositories, one registry configured twice.

mod access;
mod hub;
mod management;
mod occasions;
mod redis;
mod registry;
mod security;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use shoal_blobstore::StoreSettings;
use shoal_identity::settings::GatewayUrl;
use shoal_model::{ByteSize, Place};
use shoal_ops::settings::{InForce, Reader, Setting};
use shoal_peer::service::PeerLimits;
use shoal_peer::ticket;

pub use access::AccessSettings;
pub use hub::HubSettings;
pub use occasions::OccasionSettings;
pub use redis::{RedisServers, RedisSettings, SentinelSettings, SistersSettings};
pub use registry::RegistrySettings;
pub use security::{AuthoritySettings, CaFiles, KubernetesSettings, SecuritySettings, ServiceAccount};

use crate::audit::AuditSettings;
use crate::management::ManagementSettings;

/// The commented default settings.
pub const DEFAULT: &str = include_str!("../../config/default.yaml");

/// The longest that a right which was withdrawn may go on counting.
const MAX_ALLOW: Duration = Duration::from_secs(5 * 60);
const MIN_PIECE: u64 = 64 << 10;
const MAX_PIECE: u64 = 64 << 20;

/// What the gateway is told by its operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where nodes connect.
    pub listen: SocketAddr,
    /// The IP address that nodes are told.
    pub advertise: IpAddr,
    /// The gateway's name; `None` for the host's.
    pub node_id: Option<String>,
    /// Where it stands.
    pub place: Place,
    /// Where and how blobs are kept.
    pub store: StoreSettings,
    /// The piece length in bytes, where it is not left to the rule.
    pub piece_length: Option<u64>,
    /// How much nodes may take at once.
    pub upload: PeerLimits,
    /// gRPC addresses of schedulers.
    pub schedulers: Vec<String>,
    /// Whom this gateway shares its region with.
    pub sisters: SistersSettings,
    /// How long a proof of a caller's right is believed.
    pub allow_for: Duration,
    /// How long a ticket is good.
    pub ticket_lives: Duration,
    /// How the management API is reached, and by whom.
    pub management: ManagementSettings,
    /// Where the audit log goes.
    pub audit: AuditSettings,
    /// Where the region's certificates come from.
    pub security: SecuritySettings,
    /// The file of the signing key.
    pub key_file: PathBuf,
    /// By way of whom registries are read that this region does not read itself.
    pub hub: Option<HubSettings>,
    /// The registries that nodes may pull from.
    pub registries: Vec<RegistrySettings>,
    /// What starts preheat jobs by itself.
    pub occasions: OccasionSettings,
    /// All of it as it was written, for people to see.
    pub in_force: Vec<InForce>,
}

impl Settings {
    /// Reads them; mistakes are kept by the reader.
    pub fn read(reader: &Reader) -> Self {
        let listen: SocketAddr = reader.get("listen");
        let store = store(reader);
        let security = SecuritySettings::read(reader, &store.dir);
        let (hub, registries) = (hub::read(reader, &store.dir), registry::read_all(reader));
        if hub.is_none() && registries.iter().any(|it| it.is_behind_hub) {
            reader.reject("hub.gateways", "names no gateway, and there are registries with source: hub");
        }
        let settings = Self {
            hub,
            occasions: occasions::read(reader, &registries),
            registries,
            listen,
            advertise: advertised(reader, listen),
            node_id: reader.optional("node.id"),
            place: Place {
                zone: reader.get::<String>("node.zone").into(),
                rack: reader.get::<String>("node.rack").into(),
            },
            piece_length: reader.parse("download.pieceSize", piece_length),
            upload: PeerLimits {
                upload_slots: reader.get_in("upload.concurrentPieceCount", 1..=10_000),
                watches: reader.get_in("upload.concurrentWatchCount", 1..=1_000_000),
            },
            schedulers: addresses(reader, "schedulers", reader.values("schedulers"), &security),
            sisters: sisters(reader, &security),
            allow_for: reader.get_in("authority.allowFor", Duration::from_secs(1)..=MAX_ALLOW),
            ticket_lives: reader.get_in("authority.ticketLife", Duration::from_secs(1)..=ticket::MAX_LIVES),
            management: management::read(reader),
            audit: management::audit(reader, &store.dir),
            security,
            key_file: reader.optional("signing.keyFile").unwrap_or_else(|| store.dir.join("signing.key")),
            store,
            in_force: Vec::new(),
        };
        Self { in_force: reader.in_force(), ..settings }
    }
}

struct Ip(IpAddr);

impl Setting for Ip {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "is not an IP address".to_owned())
    }
}

fn advertised(reader: &Reader, listen: SocketAddr) -> IpAddr {
    let told = reader.optional("advertiseIP").map(|Ip(ip)| ip);
    // The default address, which this sees in place of a mistaken one, is specific.
    reader.parse("listen", |text| match text.parse::<SocketAddr>() {
        Ok(it) if it.ip().is_unspecified() && told.is_none() => {
            Err("is every address of this machine: say with advertiseIP which of them nodes use".to_owned())
        }
        _ => Ok(()),
    });
    told.unwrap_or(listen.ip())
}

/// Addresses of others of the region, who are dialled as securely as everybody else.
fn addresses(reader: &Reader, key: &str, given: Vec<String>, security: &SecuritySettings) -> Vec<String> {
    let (scheme, mtls) = match security {
        SecuritySettings::Off => ("http", "off"),
        SecuritySettings::Files(_) | SecuritySettings::Authority(_) => ("https", "on"),
    };
    if !given.iter().all(|it| it.starts_with(&format!("{scheme}://"))) {
        reader.reject(key, &format!("must begin with {scheme}:// where security.mtls is {mtls}"));
    }
    given
}

fn sisters(reader: &Reader, security: &SecuritySettings) -> SistersSettings {
    let gateways = reader.values("gateways").into_iter().map(|GatewayUrl(it)| it).collect();
    SistersSettings {
        addresses: addresses(reader, "gateways", gateways, security),
        redis: redis::read(reader),
    }
}

fn store(reader: &Reader) -> StoreSettings {
    StoreSettings {
        dir: reader.get("storage.dir"),
        capacity: reader.get("storage.diskGCThreshold"),
        low_percent: reader.parse("storage.diskGCThresholdPercent", |text| match text.parse() {
            Ok(percent @ 1..=100) => Ok(percent),
            _ => Err("is not from 1 to 100".to_owned()),
        }),
        free_floor: reader.get("storage.freeSpaceFloor"),
        expire_after: reader.get("storage.taskExpireTime"),
    }
}

fn piece_length(text: &str) -> Result<Option<u64>, String> {
    if text == "auto" {
        return Ok(None);
    }
    match text.parse() {
        Ok(ByteSize(it)) if it.is_power_of_two() && (MIN_PIECE..=MAX_PIECE).contains(&it) => Ok(Some(it)),
        _ => Err("is neither auto nor a power of two from 64Ki to 64Mi".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::{ByteRate, TrustGroup};
    use shoal_ops::program::KEYS;

    use super::*;
    use crate::credentials::Identity;
    use crate::kind::Kind;
    use crate::mode::Mode;

    fn read(user: &str) -> (Settings, Reader) {
        let env = |name: &str| (name == "ROBOT").then(|| "hunter2".to_owned());
        let reader = Reader::new(user, DEFAULT, env);
        (Settings::read(&reader), reader)
    }

    #[track_caller]
    fn check(user: &str, mistake: &str) {
        let text = read(user).1.finish().unwrap_err().to_string();
        assert!(text.contains(mistake), "{mistake:?} in {text:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn every_default_is_allowed_and_read() {
        let (settings, reader) = read("registries: [{name: harbor.example.com}]");
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(reader.unread_keys(), KEYS, "read by the program that all services share");
        assert_eq!(settings.advertise, settings.listen.ip());
        assert_eq!(settings.key_file, settings.store.dir.join("signing.key"));
        assert!(read("").0.registries.is_empty());
    }

    #[test]
    fn a_registry_is_what_its_entry_says() {
        let user = r"
            listen: 0.0.0.0:65003
            advertiseIP: 10.0.0.5
            download: {pieceSize: 1Mi}
            registries:
              - name: Harbor.example.com
                trustGroup: ours
                url: http://10.0.0.1:5000
                insecure: true
                credentials: {mode: gateway, username: robot, password: '${ROBOT}', repositories: ['prod/*', 'base/**'],
                              tokenHosts: [Login.example.com]}
                limits: {bytesPerSecond: 100Mi/s, requestsPerSecond: 50, concurrentBlobs: 4}
              - name: docker.io";
        let (settings, reader) = read(user);
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(
            (settings.advertise.to_string().as_str(), settings.piece_length),
            ("10.0.0.5", Some(1 << 20))
        );
        let [ours, hub] = &settings.registries[..] else { panic!("two registries") };
        assert_eq!(
            (ours.endpoint.name.as_str(), &ours.group),
            ("harbor.example.com", &TrustGroup::new("ours"))
        );
        assert_eq!(ours.endpoint.url.as_str(), "http://10.0.0.1:5000/");
        assert!(matches!(&ours.identity, Identity::User { name, password }
            if name.secret().expose() == "robot" && password.secret().expose() == "hunter2"));
        assert_eq!(ours.limits.bytes_per_second, Some(ByteRate(100 << 20)));
        assert_eq!(ours.limits.concurrent_blobs, 4);
        assert_eq!(ours.endpoint.token_hosts, ["login.example.com".to_owned()].into());
        for (repository, admitted) in [
            ("prod/app", true),
            ("prod/team/app", false),
            ("base/a/b", true),
            ("prod", false),
            ("other/app", false),
        ] {
            assert_eq!(ours.mode.admits(&repository.parse().unwrap()), admitted, "{repository}");
        }
        assert!(matches!(hub.mode, Mode::Client));
        assert_eq!((&hub.identity, &hub.group), (&Identity::Anonymous, &TrustGroup::new("docker.io")));
        assert_eq!(hub.endpoint.url.as_str(), "https://registry-1.docker.io/");
    }

    #[test]
    fn a_name_says_the_kind_only_where_its_own_address_is_asked() {
        let kind = |entry: &str| read(&format!("registries: [{{{entry}}}]")).0.registries[0].kind;
        assert_eq!(kind("name: docker.io"), Kind::DockerHub);
        assert_eq!(kind("name: docker.io, url: 'https://artifactory.corp'"), Kind::Oci);
        assert_eq!(
            kind("name: docker.io, url: 'https://artifactory.corp', kind: docker-hub"),
            Kind::DockerHub
        );
    }

    #[test]
    fn what_cannot_work_is_named() {
        let amazon =
            "{name: 1234.dkr.ecr.eu-west-1.amazonaws.com, credentials: {username: AWS, password: hunter2}}";
        check(&format!("registries: [{amazon}]"), "credentials.password is none for this kind");
        check("listen: '[::]:65003'", "listen = \"[::]:65003\" is every address");
        check("download: {pieceSize: 3Mi}", "pieceSize = \"3Mi\" is neither auto");
        check("download: {pieceSize: 128Mi}", "is neither auto");
        for far in ["500ms", "301s"] {
            check(&format!("authority: {{allowFor: {far}}}"), "is not from 1s to 5m");
        }
        check("storage: {diskGCThresholdPercent: 0}", "is not from 1 to 100");
        check("registries: [{url: 'https://a.example'}]", "registries[0].name is missing");
        check("registries: [{name: 'a b'}]", "registries[0].name = \"a b\" is not a registry");
        check("registries: [{name: docker.io}, {name: index.docker.io}]", "is configured twice");
        check("registries: [{name: a.example, url: 'http://a.example'}]", "in the clear");
        check("registries: [{name: a.example, url: 'https://u:hunter2@a.example'}]", "user or password");
        check("registries: [{name: a.example, credentials: {mode: gateway}}]", "needs repositories");
        check("registries: [{name: a.example, credentials: {mode: both}}]", "is neither client nor gateway");
        check("registries: [{name: a.example, credentials: {username: ann}}]", "needs a password");
        check(
            "registries: [{name: a.example, credentials: {password: hunter2}}]",
            "credentials.username is missing",
        );
        check("registries: [{name: a.example, credentials: {repositories: ['a[']}}]", "is not a glob");
    }
}
