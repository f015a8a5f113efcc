//! The scheduler's settings; `config/default.yaml` documents them and holds the defaults.

use std::net::SocketAddr;
use std::time::Duration;

use shoal_identity::settings::Source;
use shoal_ops::settings::Reader;
use shoal_swarm::table::Policy;

use crate::keys::KeyFile;

/// The commented default settings.
pub const DEFAULT: &str = include_str!("../config/default.yaml");

/// Where an issued certificate is kept, unless the settings say otherwise.
const STATE: &str = "/var/lib/shoal/scheduler";

/// What the scheduler is told by its operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where nodes connect.
    pub listen: SocketAddr,
    /// Where the scheduler's certificate comes from.
    pub security: Source,
    /// Where the region's verifying keys are kept, if anywhere.
    pub keys: Option<KeyFile>,
    /// The gateways' addresses, `https://host:port`.
    pub gateways: Vec<String>,
    /// How the table decides.
    pub policy: Policy,
}

impl Settings {
    /// Reads them; mistakes are kept by the reader.
    pub fn read(reader: &Reader) -> Self {
        const SOON: Duration = Duration::from_millis(10);
        const LATE: Duration = Duration::from_secs(600);
        let security = Source::read(reader, STATE.into());
        let gateways = security.gateways(reader);
        if gateways.is_empty() {
            reader.reject("gateways", "is empty: nobody could say whose tickets count");
        }
        Self {
            listen: reader.get("listen"),
            gateways,
            keys: security.dir().map(KeyFile::within),
            security,
            policy: Policy {
                algorithm: reader.parse("scheduler.algorithm", str::parse),
                n_near: reader.get_in("scheduler.neighbourCount", 2..=64_usize),
                lease_lives: reader.get_in("scheduler.pieceDownloadTimeout", SOON..=LATE),
                back_to_source_count: reader.get_in("scheduler.backToSourceCount", 0..=10_000_usize),
                retry_back_to_source_limit: reader.get_in("scheduler.retryBackToSourceLimit", 0..=100),
                retry_limit: reader.get_in("scheduler.retryLimit", 0..=100),
                retry_interval: reader.get_in("scheduler.retryInterval", SOON..=LATE),
                refresh_interval: reader.get_in("scheduler.refreshInterval", SOON..=LATE),
                ..Policy::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_ops::program::KEYS;

    #[test]
    fn every_default_is_allowed_and_read() {
        let reader =
            Reader::new("{security: {mtls: false}, gateways: ['http://127.0.0.1:65003']}", DEFAULT, |_| None);
        Settings::read(&reader);
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(reader.unread_keys(), KEYS, "read by the program that all services share");
    }

    #[test]
    fn mistakes_name_key_value_and_what_is_allowed() {
        let user =
            "scheduler: {algorithm: best, neighbourCount: 1, retryIntervall: 3s, refreshInterval: soon}";
        let reader = Reader::new(user, DEFAULT, |_| None);
        Settings::read(&reader);
        let text = reader.finish().unwrap_err().to_string();
        for part in [
            "scheduler.algorithm = \"best\" is not default or ml",
            "neighbourCount = \"1\" is not from 2 to 64",
            "retryIntervall",
            "refreshInterval = \"soon\"",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
