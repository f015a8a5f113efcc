//! The registries that this node may ask, and how each is reached.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_oci::RegistryName;
use shoal_registry::{Endpoint, EndpointError, RegistryClient};

use crate::settings::{ProxySettings, RegistryRule};

/// Clients that are kept; a family of registries may name more, whose clients are then made anew.
const MAX_CLIENTS: usize = 256;

/// The configured registries; clones are of the same.
#[derive(Clone)]
pub(crate) struct Registries(Arc<Inner>);

struct Inner {
    dynamic: bool,
    default: Option<(RegistryName, RegistryRule)>,
    rules: Vec<RegistryRule>,
    clients: Mutex<BTreeMap<RegistryName, RegistryClient>>,
}

impl Registries {
    /// Takes what is configured.
    pub(crate) fn new(settings: &ProxySettings) -> Self {
        let default = settings.default.clone().and_then(|it| {
            let name = it.names.as_str().parse().ok()?;
            Some((name, it))
        });
        Self(Arc::new(Inner {
            dynamic: settings.dynamic,
            default,
            rules: settings.registries.clone(),
            clients: Mutex::default(),
        }))
    }

    /// Whether requests may name this registry.
    pub(crate) fn knows(&self, name: &RegistryName) -> bool {
        self.rule(name).is_some()
    }

    /// The registry of requests that name none.
    pub(crate) fn default(&self) -> Option<&RegistryName> {
        self.0.default.as_ref().map(|(name, _)| name)
    }

    /// Whether requests choose their registry.
    pub(crate) fn dynamic(&self) -> bool {
        self.0.dynamic
    }

    /// What is configured, for the error that a wrong name gets.
    pub(crate) fn names(&self) -> String {
        let names = self.0.rules.iter().map(|it| it.names.as_str());
        let names: Vec<_> = names.chain(self.default().map(RegistryName::as_str)).collect();
        names.join(", ")
    }

    /// A client for a configured registry.
    ///
    /// # Errors
    /// Where its address or certificates are of no use.
    pub(crate) fn client(&self, name: &RegistryName) -> Result<RegistryClient, EndpointError> {
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(name) {
            return Ok(client.clone());
        }
        let client = RegistryClient::new(&self.endpoint(name)?)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(name.clone(), client.clone());
        Ok(client)
    }

    fn endpoint(&self, name: &RegistryName) -> Result<Endpoint, EndpointError> {
        let mut endpoint = Endpoint::of(name.clone())?;
        if let Some(rule) = self.rule(name) {
            match &rule.url {
                Some(url) => endpoint.url = url.clone(),
                // The operator named a family, and the caller one of its hosts.
                None => endpoint.chosen_by_caller = rule.names.as_str() != name.as_str(),
            }
            endpoint.ca.clone_from(&rule.ca);
            endpoint.insecure = rule.insecure;
        }
        Ok(endpoint)
    }

    fn rule(&self, name: &RegistryName) -> Option<&RegistryRule> {
        let default = self.0.default.as_ref().filter(|(it, _)| it == name).map(|(_, rule)| rule);
        self.0.rules.iter().find(|it| it.names.include(name)).or(default)
    }
}

#[cfg(test)]
mod tests {
    use shoal_ops::settings::Reader;

    use super::*;
    use crate::settings::{DEFAULT, Settings};

    #[track_caller]
    fn check(registry: &str, name: &str, expected: bool) {
        let user =
            format!("{{security: {{mtls: false}}, gateways: [], proxy: {{registries: [{{{registry}}}]}}}}");
        let reader = Reader::new(&user, DEFAULT, |_| None);
        let registries = Registries::new(&Settings::read(&reader).proxy);
        reader.finish().unwrap();
        let endpoint = registries.endpoint(&name.parse().unwrap()).unwrap();
        assert_eq!(endpoint.chosen_by_caller, expected, "{name} of {registry}");
    }

    #[test]
    fn a_caller_chooses_a_host_where_a_pattern_leaves_it_open() {
        check("name: '*'", "127.0.0.1:8080", true);
        check("name: '*.corp'", "harbor.corp", true);
        check("name: '*.corp', url: 'https://10.0.0.1'", "harbor.corp", false);
        check("name: Harbor.corp", "harbor.corp", false);
        check("name: '[::1]:5000'", "[::1]:5000", false);
        check("name: docker.io", "registry-1.docker.io", false);
        check("name: '*.corp'", "docker.io", false);
    }
}
