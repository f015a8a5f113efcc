//! Which token service a registry's credential may be shown to.
//!
//! A registry names its token service in the `realm` of a challenge, and the password then goes there. So
//! whoever can write that answer, a registry that was broken into or somebody in between, could have the
//! password sent to himself. It goes to the registry's own host, to hosts of the same domain, and to hosts
//! that the operator named; and in the clear only where the operator allowed that.
//!
//! The same domain means that the last two labels are equal. An address has no domain, and a name of a
//! single label is its own. The registry may be known by a name and be reached at another address, and its
//! answers then speak of either.

use url::{Host, Url};

use crate::Endpoint;

/// Why a token service is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Distrusted {
    #[error("the realm of the challenge is no URL of a token service")]
    NoUrl,
    #[error("token service {host}: would get the credential in the clear")]
    Plain { host: String },
    #[error("token service {host}: of another domain than the registry, and not in tokenHosts")]
    Stranger { host: String },
}

/// The URL of the token service that a challenge names as `realm`, if `endpoint`'s credential may go there.
pub(crate) fn judge(endpoint: &Endpoint, realm: &str) -> Result<Url, Distrusted> {
    let mut url = Url::parse(realm).map_err(|_| Distrusted::NoUrl)?;
    url.set_fragment(None);
    let host = url.host().ok_or(Distrusted::NoUrl)?.to_owned();
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Distrusted::NoUrl);
    }
    match url.scheme() {
        "https" => {}
        "http" if endpoint.insecure => {}
        "http" => return Err(Distrusted::Plain { host: host.to_string() }),
        _ => return Err(Distrusted::NoUrl),
    }
    // A registry's name is as good as a URL's authority.
    let named = Url::parse(&format!("https://{}", endpoint.name)).ok();
    let own = [Some(&endpoint.url), named.as_ref()];
    let is_related = own.into_iter().flatten().filter_map(Url::host).any(|it| related(&it, &host));
    if is_related || endpoint.token_hosts.contains(&host.to_string()) {
        Ok(url)
    } else {
        Err(Distrusted::Stranger { host: host.to_string() })
    }
}

fn related(own: &Host<&str>, host: &Host<String>) -> bool {
    match (own, host) {
        (Host::Domain(own), Host::Domain(host)) => domain(own) == domain(host),
        (Host::Ipv4(own), Host::Ipv4(host)) => own == host,
        (Host::Ipv6(own), Host::Ipv6(host)) => own == host,
        _ => false,
    }
}

/// The last two labels; a dot at the end, which marks a name as absolute, is no label.
fn domain(host: &str) -> Vec<&str> {
    host.strip_suffix('.').unwrap_or(host).rsplit('.').take(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, url: &str) -> Endpoint {
        let mut endpoint = Endpoint::of(name.parse().unwrap()).unwrap();
        endpoint.url = url.parse().unwrap();
        endpoint.insecure = endpoint.url.scheme() == "http";
        endpoint.token_hosts = ["login.other.example".to_owned()].into();
        endpoint
    }

    #[track_caller]
    fn check(endpoint: &Endpoint, realm: &str, expected: Result<(), &str>) {
        match (judge(endpoint, realm), expected) {
            (Ok(url), Ok(())) => assert_eq!(url.as_str(), realm),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{realm}: {error}"),
            (got, _) => panic!("{realm}: got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_credential_goes_to_its_own_domain_and_to_hosts_that_the_operator_named() {
        let harbor = endpoint("harbor.example.com", "https://harbor.example.com:8443");
        for realm in [
            "https://harbor.example.com/service/token",
            "https://harbor.example.com:8443/service/token",
            "https://auth.example.com/token",
            "https://example.com/token",
            "https://login.other.example/token",
        ] {
            check(&harbor, realm, Ok(()));
        }
        for realm in [
            "https://evil.com/token",
            "https://harbor.example.com.evil.com/token",
            "https://evilexample.com/token",
            "https://10.0.0.1/token",
            "https://a.login.other.example/token",
            "https://com/token",
        ] {
            check(&harbor, realm, Err("of another domain"));
        }
        check(&harbor, "http://harbor.example.com/service/token", Err("in the clear"));
        for realm in ["", "/service/token", "file:///etc/passwd", "https://ann:x@harbor.example.com/"] {
            check(&harbor, realm, Err("no URL"));
        }
        let hub = Endpoint::of("docker.io".parse().unwrap()).unwrap();
        check(&hub, "https://auth.docker.io/token", Ok(()));
    }

    #[test]
    fn an_address_and_a_single_label_are_related_to_nothing_but_themselves() {
        let by_address = endpoint("10.0.0.1:5000", "http://10.0.0.1:5000");
        check(&by_address, "http://10.0.0.1:5001/token", Ok(()));
        check(&by_address, "http://10.1.0.1/token", Err("of another domain"));
        check(&by_address, "http://[::ffff:a00:1]/token", Err("of another domain"));
        let single = endpoint("registry", "https://registry");
        check(&single, "https://registry/token", Ok(()));
        check(&single, "https://evil/token", Err("of another domain"));
        check(&single, "https://evil.registry/token", Err("of another domain"));
        let absolute = endpoint("registry.example", "https://a.example.");
        check(&absolute, "https://evil.other./token", Err("of another domain"));
    }

    #[test]
    fn a_registry_that_is_reached_elsewhere_may_speak_of_its_name() {
        let inner = endpoint("harbor.example.com", "https://10.0.0.1");
        check(&inner, "https://harbor.example.com/service/token", Ok(()));
        check(&inner, "https://10.0.0.1/service/token", Ok(()));
    }
}
