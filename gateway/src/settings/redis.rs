//! How the gateways of a region know each other: `gateways` and the group `redis`.

use std::path::PathBuf;

use shoal_ops::settings::{Reader, SecretSource, Setting};
use url::Url;

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
    /// `redis://` or, for TLS, `rediss://`.
    pub url: String,
    /// Who the gateway is to it.
    pub username: Option<SecretSource>,
    /// What proves that.
    pub password: Option<SecretSource>,
    /// The file of the authority that it is recognised by, in PEM; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// What the names of all keys begin with.
    pub prefix: String,
}

/// Reads the group; `None` where there is no Redis.
pub(super) fn read(reader: &Reader) -> Option<RedisSettings> {
    let settings = RedisSettings {
        url: reader.optional("redis.url").map(|RedisUrl(it)| it).unwrap_or_default(),
        username: reader.optional("redis.username"),
        password: reader.optional("redis.password"),
        ca: reader.optional("redis.ca"),
        prefix: reader.get("redis.prefix"),
    };
    if settings.ca.is_some() && !settings.url.starts_with("rediss://") {
        reader.reject("redis.ca", "is for TLS, and redis.url does not begin with rediss://");
    }
    Some(settings).filter(|it| !it.url.is_empty())
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
        assert_eq!((redis.url.as_str(), redis.prefix.as_str()), ("rediss://r.example:6380/2", "shoal:"));
        assert_eq!(redis.password.as_ref().map(|it| it.secret().expose()), Some("hunter2"));
        assert!(!format!("{redis:?}").contains("hunter2"));
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
        check_mistake("gateways: ['http://g.example:65003']", "gateways must begin with https://");
        check_mistake("gateways: ['g.example']", "gateways[0] = \"g.example\" is not of the form");
    }
}
