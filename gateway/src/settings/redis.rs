//! How the gateways of a region know each other: `gateways` and the group `redis`.

use std::fmt;
use std::path::PathBuf;

use shoal_ops::settings::{Reader, SecretSource, Setting};
use url::Url;

/// How an address begins that is asked by TLS.
const TLS: &str = "rediss://";

/// Whom this gateway shares its region with.
#[derive(Clone, Debug)]
pub struct SistersSettings {
    /// Addresses of gateways, `https://host:port` each; this gateway's own may be among them.
    pub addresses: Vec<String>,
    /// Where leases and addresses are kept, if anywhere.
    pub redis: Option<RedisSettings>,
}

/// How Redis is reached.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where it is.
    pub servers: RedisServers,
    /// Who the gateway is to it.
    pub username: Option<SecretSource>,
    /// What proves that.
    pub password: Option<SecretSource>,
    /// The file of the authority that it is recognised by, in PEM; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// What the names of all keys begin with.
    pub prefix: String,
}

/// Where a Redis is; all addresses begin with `redis://` or all, for TLS, with `rediss://`.
#[derive(Clone, Debug)]
pub enum RedisServers {
    /// At this address.
    One(String),
    /// Where Sentinels say.
    Sentinels(SentinelSettings),
    /// In several places, some of which are these.
    Cluster(Vec<String>),
}

/// Who knows where the master is.
#[derive(Clone, Debug)]
pub struct SentinelSettings {
    /// Addresses of Sentinels.
    pub urls: Vec<String>,
    /// What they call the master.
    pub master: String,
    /// Who the gateway is to them.
    pub username: Option<SecretSource>,
    /// What proves that.
    pub password: Option<SecretSource>,
}

impl RedisServers {
    fn urls(&self) -> &[String] {
        match self {
            Self::One(url) => std::slice::from_ref(url),
            Self::Sentinels(it) => &it.urls,
            Self::Cluster(urls) => urls,
        }
    }

    /// Whether everything is asked by TLS.
    pub fn has_tls(&self) -> bool {
        self.urls().iter().any(|it| it.starts_with(TLS))
    }
}

impl fmt::Display for RedisServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sentinels(it) => write!(f, "{} by ", it.master)?,
            Self::One(_) | Self::Cluster(_) => {}
        }
        f.write_str(&self.urls().join(", "))
    }
}

/// Reads the group; `None` where there is no Redis.
pub(super) fn read(reader: &Reader) -> Option<RedisSettings> {
    let settings = RedisSettings {
        username: reader.optional("redis.username"),
        password: reader.optional("redis.password"),
        ca: reader.optional("redis.ca"),
        prefix: reader.get("redis.prefix"),
        servers: servers(reader)?,
    };
    let urls = settings.servers.urls();
    if settings.servers.has_tls() != urls.iter().all(|it| it.starts_with(TLS)) {
        reader.reject("redis", "has addresses with TLS, rediss://, and without");
    }
    if settings.ca.is_some() && !settings.servers.has_tls() {
        reader.reject("redis.ca", "is for TLS, and no address of redis begins with rediss://");
    }
    if matches!(settings.servers, RedisServers::Cluster(_)) {
        if !has_hash_tag(&settings.prefix) {
            reader.reject(
                "redis.prefix",
                "keeps keys apart in a Cluster: put something of it in braces, as in {shoal}:",
            );
        }
        if urls.iter().any(|it| Url::parse(it).is_ok_and(|it| it.path().len() > 1)) {
            reader.reject("redis.cluster", "names a database, and a Cluster has one only");
        }
    }
    Some(settings)
}

fn servers(reader: &Reader) -> Option<RedisServers> {
    let urls = |key| reader.values(key).into_iter().map(|RedisUrl(it)| it).collect::<Vec<_>>();
    let url = reader.optional("redis.url").map(|RedisUrl(it)| it);
    let (sentinels, cluster) = (urls("redis.sentinels"), urls("redis.cluster"));
    let sentinels = SentinelSettings {
        urls: sentinels,
        master: reader.optional("redis.master").unwrap_or_default(),
        username: reader.optional("redis.sentinelUsername"),
        password: reader.optional("redis.sentinelPassword"),
    };
    if sentinels.urls.is_empty() != sentinels.master.is_empty() {
        reader.reject(
            "redis.master",
            "goes with redis.sentinels: it is the name by which they know the master",
        );
    }
    let url = url.map(RedisServers::One);
    let sentinels = (!sentinels.urls.is_empty()).then_some(RedisServers::Sentinels(sentinels));
    let cluster = (!cluster.is_empty()).then_some(RedisServers::Cluster(cluster));
    let mut given = [url, sentinels, cluster].into_iter().flatten();
    let first = given.next();
    if given.next().is_some() {
        reader.reject("redis", "has more than one of url, sentinels and cluster");
    }
    first
}

/// Whether all keys that begin so are in one slot of a Cluster, as those of one script have to be.
fn has_hash_tag(prefix: &str) -> bool {
    prefix.split_once('{').and_then(|(_, it)| it.split_once('}')).is_some_and(|(tag, _)| !tag.is_empty())
}

struct RedisUrl(String);

impl Setting for RedisUrl {
    fn read(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err("holds a user or password: put them in redis.username and redis.password".to_owned());
        }
        let is_database = |path: &str| path.is_empty() || path.bytes().all(|it| it.is_ascii_digit());
        match Url::parse(text) {
            Ok(url)
                if matches!(url.scheme(), "redis" | "rediss")
                    && url.has_host()
                    && url.query().is_none()
                    && url.fragment().is_none()
                    && is_database(url.path().trim_start_matches('/')) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err("is not of the form redis://host:port or rediss://host:port/database".to_owned()),
        }
    }

    fn shown(text: &str) -> String {
        if text.contains('@') { "…" } else { text }.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULT, Settings};
    use super::*;

    fn read(user: &str) -> (SistersSettings, Result<(), String>) {
        let reader = Reader::new(user, DEFAULT, |_| None);
        (Settings::read(&reader).sisters, reader.finish().map_err(|it| it.to_string()))
    }

    #[test]
    fn a_gateway_is_alone_unless_told_otherwise() {
        let (settings, res) = read("");
        assert_eq!((settings.addresses.len(), settings.redis.is_none(), res), (0, true, Ok(())));
    }

    #[test]
    fn redis_is_what_the_settings_say() {
        let (settings, res) = read(
            "{gateways: ['https://g.example:65003'], \
             redis: {url: 'rediss://r.example:6380/2', username: u, password: hunter2, ca: /ca}}",
        );
        assert_eq!((res, settings.addresses), (Ok(()), vec!["https://g.example:65003".to_owned()]));
        let redis = settings.redis.unwrap();
        assert_eq!(redis.servers.to_string(), "rediss://r.example:6380/2");
        assert_eq!((redis.servers.has_tls(), redis.prefix.as_str()), (true, "{shoal}:"));
        assert_eq!(redis.password.as_ref().map(|it| it.secret().expose()), Some("hunter2"));
        assert!(!format!("{redis:?}").contains("hunter2"));
    }

    #[test]
    fn several_belong_together_by_sentinels_or_as_a_cluster() {
        let (settings, res) = read(
            "redis: {sentinels: ['redis://a:26379', 'redis://b:26379'], master: m, password: hunter2, \
             sentinelUsername: s, sentinelPassword: hunter3}",
        );
        let redis = settings.redis.unwrap();
        assert_eq!(
            (res, redis.servers.to_string()),
            (Ok(()), "m by redis://a:26379, redis://b:26379".to_owned())
        );
        let text = format!("{redis:?}");
        assert!(!text.contains("hunter"), "{text}");
        let RedisServers::Sentinels(it) = redis.servers else { panic!("{text}") };
        assert_eq!(it.password.as_ref().map(|it| it.secret().expose()), Some("hunter3"));

        let (settings, res) = read("redis: {cluster: ['rediss://a:6379', 'rediss://b:6379']}");
        let redis = settings.redis.unwrap();
        assert_eq!((res, redis.servers.has_tls()), (Ok(()), true));
    }

    #[track_caller]
    fn check_mistake(user: &str, part: &str) {
        let text = read(user).1.unwrap_err();
        assert!(text.contains(part), "{part:?} in {text:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn what_cannot_work_is_named() {
        for url in ["http://a:1", "redis:", "a:6379", "redis://a/b", "redis://a?x=1"] {
            check_mistake(&format!("redis: {{url: '{url}'}}"), "is not of the form redis://host:port");
        }
        check_mistake("redis: {url: 'redis://u:hunter2@a:1'}", "redis.url = \"…\" holds a user or password");
        check_mistake("redis: {url: 'redis://a:1', ca: /ca}", "redis.ca is for TLS");
        check_mistake("redis: {url: 'redis://a:1', cluster: ['redis://a:1']}", "more than one of url");
        check_mistake(
            "redis: {cluster: ['redis://a:1', 'rediss://b:1']}",
            "with TLS, rediss://, and without",
        );
        check_mistake("redis: {cluster: ['redis://a:1/2']}", "redis.cluster names a database");
        for prefix in ["shoal:", "{}:", "}shoal{", "{shoal"] {
            let text = format!("redis: {{cluster: ['redis://a:1'], prefix: '{prefix}'}}");
            check_mistake(&text, "redis.prefix keeps keys apart in a Cluster");
        }
        check_mistake("redis: {sentinels: ['redis://a:1']}", "redis.master goes with redis.sentinels");
        check_mistake("redis: {url: 'redis://a:1', master: m}", "redis.master goes with redis.sentinels");
        check_mistake("gateways: ['http://g.example:65003']", "gateways must begin with https://");
        check_mistake("gateways: ['g.example']", "gateways[0] = \"g.example\" is not of the form");
    }
}
