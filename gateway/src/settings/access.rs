//! How a registry's clients reach it here, and what they can prove by themselves.

use std::collections::BTreeSet;
use std::path::PathBuf;

use shoal_ops::settings::{Reader, Setting};
use url::Host;

use crate::authority::access_token::TokenRules;
use crate::kind::Kind;
use crate::token_key::TokenKeySettings;

/// What clients of one registry may rely on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// Names, in lower case and without a port, under which the gateway is this registry.
    pub hosts: Vec<String>,
    /// The key of the registry's token service.
    pub token_key: Option<TokenKeySettings>,
}

/// `seen`: the host names of the registries before.
pub(super) fn read(item: &Reader, kind: Kind, seen: &mut BTreeSet<String>) -> AccessSettings {
    AccessSettings { hosts: hosts(item, seen), token_key: token_key(item, kind) }
}

fn hosts(item: &Reader, seen: &mut BTreeSet<String>) -> Vec<String> {
    let named = item.values("hosts").into_iter().map(|HostName(name)| name);
    let (new, twice): (Vec<_>, Vec<_>) = named.partition(|it| seen.insert(it.clone()));
    if !twice.is_empty() {
        // Which one is not shown: it may have come from the environment.
        item.reject("hosts", "names one that is configured twice, here or at another registry");
    }
    new
}

fn token_key(item: &Reader, kind: Kind) -> Option<TokenKeySettings> {
    let file: Option<PathBuf> = item.optional("credentials.tokenKey");
    let issuer: Option<String> = item.optional("credentials.tokenIssuer");
    let audience: Option<String> = item.optional("credentials.tokenAudience");
    let Some(file) = file else {
        if issuer.is_some() || audience.is_some() {
            item.required::<String>("credentials.tokenKey");
        }
        return None;
    };
    let usual = || kind.token_audience().map(str::to_owned);
    let audience = audience.or_else(usual).unwrap_or_else(|| item.required("credentials.tokenAudience"));
    Some(TokenKeySettings { file, rules: TokenRules { issuer, audience } })
}

struct HostName(String);

impl Setting for HostName {
    fn read(text: &str) -> Result<Self, String> {
        let host = Host::parse(text).map_err(|_| "is not a host name such as mirror.example.com")?;
        Ok(Self(host.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{DEFAULT, Settings};

    fn read(registries: &str) -> (Vec<AccessSettings>, Result<(), String>) {
        let reader = Reader::new(&format!("registries: [{registries}]"), DEFAULT, |_| None);
        let settings = Settings::read(&reader);
        let access = settings.registries.into_iter().map(|it| it.access).collect();
        (access, reader.finish().map_err(|it| it.to_string()))
    }

    #[track_caller]
    fn check(registries: &str, mistake: &str) {
        let text = read(registries).1.unwrap_err();
        assert!(text.contains(mistake), "{mistake:?} in {text:?}");
    }

    #[test]
    fn a_registry_has_hosts_and_a_token_key_where_they_are_given() {
        let (access, res) = read(
            "{name: a.example, kind: harbor, hosts: [A.Mirror.example, '10.0.0.1'], \
              credentials: {tokenKey: /etc/key.pem, tokenIssuer: harbor-token-issuer}}, \
             {name: b.example, credentials: {tokenKey: /etc/key.pem, tokenAudience: b}}, {name: c.example}",
        );
        assert_eq!(res, Ok(()));
        let token_key = |issuer: Option<&str>, audience: &str| {
            let rules = TokenRules { issuer: issuer.map(str::to_owned), audience: audience.to_owned() };
            Some(TokenKeySettings { file: "/etc/key.pem".into(), rules })
        };
        let [a, b, c] = &access[..] else { panic!("three registries") };
        assert_eq!(a.hosts, ["a.mirror.example", "10.0.0.1"]);
        assert_eq!(a.token_key, token_key(Some("harbor-token-issuer"), "harbor-registry"));
        assert_eq!(b.token_key, token_key(None, "b"));
        assert_eq!(*c, AccessSettings::default());
    }

    #[test]
    fn what_cannot_work_is_named() {
        check("{name: a.example, hosts: ['a:5000']}", "hosts[0] = \"a:5000\" is not a host name");
        check(
            "{name: a.example, hosts: [m.example]}, {name: b.example, hosts: [M.example]}",
            "registries[1].hosts names one that is configured twice",
        );
        check("{name: a.example, credentials: {tokenKey: /k}}", "credentials.tokenAudience is missing");
        check("{name: a.example, credentials: {tokenAudience: a}}", "credentials.tokenKey is missing");
    }
}
