//! The hub: the gateways of another region, by way of which this one reads registries. The group `hub`.

use std::path::Path;

use shoal_identity::settings::{GatewayUrl, Source};
use shoal_ops::settings::Reader;

use crate::regions::RegionName;

/// How the hub is reached.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Its gateways, `https://host:port` each.
    pub gateways: Vec<String>,
    /// What this region is called there.
    pub region: RegionName,
    /// Where the certificate of the hub's region comes from.
    pub certificate: Source,
}

/// Reads the group; `None` where there is no hub. A certificate that is issued is kept below `dir`.
pub(super) fn read(reader: &Reader, dir: &Path) -> Option<HubSettings> {
    let hub = reader.within("hub");
    let region = hub.optional("region");
    let Some(certificate) = Source::find(&hub, dir.join("hub")) else {
        if !hub.values::<GatewayUrl>("gateways").is_empty() {
            hub.reject(
                "security",
                "names no certificate of the hub's region: give joinToken (a gateway of the hub writes region.token \
                 into its join directory), or certFile, keyFile and caFile",
            );
        }
        return None;
    };
    let gateways = certificate.gateways(&hub);
    if gateways.is_empty() {
        return None;
    }
    if region.is_none() {
        hub.reject("region", "is missing: the hub lists its regions by name");
    }
    Some(HubSettings { gateways, region: region?, certificate })
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULT, Settings};
    use super::*;

    const TOKEN: &str = "shoal-join.e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.\
                         AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn read(user: &str) -> (Option<HubSettings>, Result<(), String>) {
        let reader = Reader::new(user, DEFAULT, |_| None);
        (Settings::read(&reader).hub, reader.finish().map_err(|it| it.to_string()))
    }

    #[track_caller]
    fn check_mistake(user: &str, part: &str) {
        let text = read(user).1.unwrap_err();
        assert!(text.contains(part), "{part:?} in {text:?}");
    }

    #[test]
    fn a_hub_is_what_the_settings_say() {
        assert!(matches!(read(""), (None, Ok(()))));
        let hub = format!(
            "gateways: ['https://hub.example:65003'], region: eu, security: {{joinToken: '{TOKEN}'}}"
        );
        let entry = "registries: [{name: a.example, source: hub}, {name: b.example}]";
        let (settings, res) = read(&format!("{{hub: {{{hub}}}, {entry}}}"));
        assert_eq!(res, Ok(()));
        let settings = settings.unwrap();
        assert_eq!(
            (settings.region.as_str(), &settings.gateways[0][..]),
            ("eu", "https://hub.example:65003")
        );
        assert_eq!(settings.certificate.dir(), Some(Path::new("/var/lib/shoal/gateway/hub")));
    }

    #[test]
    fn what_cannot_work_is_named() {
        let gateways = "gateways: ['https://hub.example:65003']";
        check_mistake(&format!("hub: {{{gateways}, region: eu}}"), "hub.security names no certificate");
        let joined = format!("{gateways}, security: {{joinToken: '{TOKEN}'}}");
        check_mistake(&format!("hub: {{{joined}}}"), "hub.region is missing");
        check_mistake(&format!("hub: {{{joined}, region: 'a b'}}"), "hub.region = \"a b\" is not of 1 to 63");
        check_mistake("registries: [{name: a.example, source: hub}]", "hub.gateways names no gateway");
        let entry = |more: &str| {
            format!("{{hub: {{{joined}, region: eu}}, registries: [{{name: a.example, {more}}}]}}")
        };
        check_mistake(&entry("source: both"), "source = \"both\" is neither registry nor hub");
        check_mistake(
            &entry("source: hub, url: 'https://b.example'"),
            "url = \"https://b.example\" is the hub's",
        );
        check_mistake(
            &entry("source: hub, credentials: {username: u, password: p}"),
            "credentials.username is the hub's",
        );
    }
}
