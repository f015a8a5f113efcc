//! Where a registry is and how it is trusted.
//!
//! The name is what images and credentials are known by; the address may differ from it (a mirror
//! inside the data centre, Docker Hub's separate API host). Plain HTTP sends credentials in the
//! clear, so it must be asked for as loudly as an unverified certificate.

use std::collections::BTreeSet;
use std::path::PathBuf;

use shoal_oci::RegistryName;
use url::Url;

/// A registry's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name in image references, as in `ns`.
    pub name: RegistryName,
    /// `https://host[:port]` or `http://host[:port]`, without a path.
    pub url: Url,
    /// A PEM file of certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// What the registry itself, and nobody else, is shown when it asks who connects, unless the request is
    /// somebody else's ([`RegistryClient::unidentified`](crate::RegistryClient::unidentified)).
    pub client_certificate: Option<ClientCertificate>,
    /// Plain HTTP is allowed, and certificates are not verified.
    pub insecure: bool,
    /// A caller chose the host within a pattern of the operator's, so that it may not stand on a loopback,
    /// link-local or metadata address.
    pub chosen_by_caller: bool,
    /// Hosts, besides the registry's own, in lower case, that a redirect may lead to wherever they stand.
    pub redirect_hosts: BTreeSet<String>,
    /// Hosts outside the registry's own domain, in lower case, whose token services may be shown its
    /// credential.
    pub token_hosts: BTreeSet<String>,
    /// What is read of it is metered, so little is taken in that nobody has asked for yet.
    pub is_metered: bool,
}

/// PEM files that say who connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those up to its authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why an endpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The address is of no use.
    #[error("registry {registry}: url {url} {fault}")]
    Url {
        /// The registry's name.
        registry: RegistryName,
        /// The address without user and password.
        url: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A file of certificates or of a key cannot be used.
    #[error("registry {registry}: {}: {fault}", path.display())]
    File {
        /// The registry's name.
        registry: RegistryName,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
}

impl Endpoint {
    /// The endpoint that the name alone implies: HTTPS at that host, certificates verified.
    pub fn of(name: RegistryName) -> Result<Self, EndpointError> {
        let host = if name.is_docker_hub() { "registry-1.docker.io" } else { name.as_str() };
        let text = format!("https://{host}");
        let url = Url::parse(&text).map_err(|_| EndpointError::Url {
            registry: name.clone(),
            url: text,
            fault: "is no URL",
        })?;
        Ok(Self {
            name,
            url,
            ca: None,
            client_certificate: None,
            insecure: false,
            chosen_by_caller: false,
            redirect_hosts: BTreeSet::new(),
            token_hosts: BTreeSet::new(),
            is_metered: false,
        })
    }

    /// Whether the address can be used.
    pub(crate) fn check(&self) -> Result<(), EndpointError> {
        self.fault().map_or(Ok(()), |fault| {
            let url = self.url.origin().ascii_serialization();
            Err(EndpointError::Url { registry: self.name.clone(), url, fault })
        })
    }

    /// What makes the address unusable, as the end of a sentence that begins with it.
    pub fn fault(&self) -> Option<&'static str> {
        let url = &self.url;
        match url.scheme() {
            "https" => {}
            "http" if self.insecure => {}
            "http" => return Some("sends credentials in the clear: use https or set insecure"),
            _ => return Some("is neither https nor http"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Some("holds a user or password: put them under credentials");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Some("holds more than scheme, host and port");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, insecure: bool, expected: Result<(), &str>) {
        let mut endpoint = Endpoint::of("harbor.example.com".parse().unwrap()).unwrap();
        endpoint.url = url.parse().unwrap();
        endpoint.insecure = insecure;
        match (endpoint.check(), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, _) => panic!("{url}: got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        check("https://harbor.example.com", false, Ok(()));
        check("https://[2001:db8::1]:5000/", false, Ok(()));
        check("http://10.0.0.1:5000", true, Ok(()));
        check("http://10.0.0.1:5000", false, Err("set insecure"));
        check("ftp://10.0.0.1", true, Err("neither"));
        check("https://10.0.0.1/prefix", false, Err("more than"));
        check("https://10.0.0.1/?a", false, Err("more than"));
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let mut endpoint = Endpoint::of("harbor.example.com".parse().unwrap()).unwrap();
        endpoint.url = "https://ann:hunter2@harbor.example.com".parse().unwrap();
        let error = endpoint.check().unwrap_err().to_string();
        assert!(error.contains("credentials") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_name_alone_implies_https_and_docker_hub_has_its_own_host() {
        for (name, url) in [
            ("docker.io", "https://registry-1.docker.io/"),
            ("harbor.example.com:8443", "https://harbor.example.com:8443/"),
            ("[::1]:5000", "https://[::1]:5000/"),
        ] {
            assert_eq!(Endpoint::of(name.parse().unwrap()).unwrap().url.as_str(), url);
        }
    }
}
