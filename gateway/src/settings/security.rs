//! How the parts of the region know each other: the group `security`.
//!
//! A region has one certificate authority. Mostly the gateway is it; it can also be somebody else's, who then
//! gives the gateway a certificate like everybody else. A gateway with a certificate of its own may issue
//! others only under an authority that it was given as well: one that it made for itself would be a second.
//!
//! What a node joins with proves a role. So one token or account for two roles is a mistake, for it would
//! prove neither.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shoal_identity::settings::Files;
use shoal_identity::{JoinToken, TrustDomain};
use shoal_ops::settings::{Reader, Secret, Setting};
use url::Url;

use crate::issuing::{Newcomer, tokens_in};

const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(720 * 3600);

/// Where the certificates of the region come from.
#[derive(Clone, Debug)]
pub enum SecuritySettings {
    /// There are none, and nothing is encrypted or proven: for tests on one machine.
    Off,
    /// From somebody else, the gateway's too.
    Files(Files),
    /// From this gateway.
    Authority(Box<AuthoritySettings>),
}

/// How the gateway issues certificates.
#[derive(Clone, Debug)]
pub struct AuthoritySettings {
    /// What the names in them begin with.
    pub domain: TrustDomain,
    /// The authority itself.
    pub ca: CaFiles,
    /// The gateway's own certificate, where it does not issue that as well.
    pub own: Option<Files>,
    /// How long they are good.
    pub lives: Duration,
    /// The tokens that roles join with; a role without any has one made.
    pub join_tokens: BTreeMap<Newcomer, Vec<JoinToken>>,
    /// Where tokens that were made are kept.
    pub join_dir: PathBuf,
    /// How service accounts join, if they may.
    pub kubernetes: Option<KubernetesSettings>,
}

/// The files of the region's authority, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaFiles {
    /// The operator's.
    Given {
        /// The root.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made at the first start, in this directory.
    Kept(PathBuf),
}

impl CaFiles {
    /// The file of the root.
    pub fn certificate(&self) -> PathBuf {
        match self {
            Self::Given { certificate, .. } => certificate.clone(),
            Self::Kept(dir) => dir.join("ca.pem"),
        }
    }
}

/// Which service accounts may join, and who knows about them.
#[derive(Clone, Debug)]
pub struct KubernetesSettings {
    /// The account that each role runs as.
    pub accounts: BTreeMap<Newcomer, ServiceAccount>,
    /// Whom tokens must be made for.
    pub audience: String,
    /// The Kubernetes API; `https`.
    pub api_server: Url,
    /// Certificates that the API is recognised by, in PEM.
    pub ca_file: PathBuf,
    /// The gateway's own token for the API.
    pub token_file: PathBuf,
}

/// A service account by the user name that Kubernetes knows it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// `system:serviceaccount:<namespace>:<name>`
    pub username: String,
}

impl SecuritySettings {
    /// Reads the group; what the gateway makes for itself goes below `dir`.
    pub(super) fn read(reader: &Reader, dir: &Path) -> Self {
        let own = Files::read(reader, false);
        let authority = authority(reader, dir);
        let is_issuing: bool = reader.get("security.autoIssueCert");
        if !reader.get::<bool>("security.mtls") {
            return Self::Off;
        }
        match (own, is_issuing, &authority.ca) {
            (None, true, _) => Self::Authority(Box::new(authority)),
            (own @ Some(_), true, CaFiles::Given { .. }) => {
                Self::Authority(Box::new(AuthoritySettings { own, ..authority }))
            }
            (Some(own), false, _) => Self::Files(own),
            (Some(_), true, CaFiles::Kept(_)) => {
                reader.reject(
                    "security.certFile",
                    "is from another authority than the one that autoIssueCert would make: give that one's \
                     files in security.ca, or set autoIssueCert: false",
                );
                Self::Off
            }
            (None, false, _) => {
                reader.reject(
                    "security.autoIssueCert",
                    "is off, so the gateway needs a certificate: give certFile, keyFile and caFile",
                );
                Self::Off
            }
        }
    }
}

fn authority(reader: &Reader, dir: &Path) -> AuthoritySettings {
    AuthoritySettings {
        domain: reader.get::<Domain>("security.trustDomain").0,
        ca: ca(reader, dir),
        own: None,
        lives: reader.get_in("security.certLifetime", SHORTEST..=LONGEST),
        join_tokens: join_tokens(reader),
        join_dir: dir.join("join"),
        kubernetes: kubernetes(reader),
    }
}

fn ca(reader: &Reader, dir: &Path) -> CaFiles {
    let certificate: Option<PathBuf> = reader.optional("security.ca.certFile");
    let key: Option<PathBuf> = reader.optional("security.ca.keyFile");
    match (certificate, key) {
        (Some(certificate), Some(key)) => return CaFiles::Given { certificate, key },
        (None, None) => {}
        _ => reader.reject("security.ca.certFile", "goes with keyFile: give both or none"),
    }
    CaFiles::Kept(dir.join("ca"))
}

fn join_tokens(reader: &Reader) -> BTreeMap<Newcomer, Vec<JoinToken>> {
    let read = |role: Newcomer| {
        let tokens: Option<Tokens> = reader.optional(&format!("security.joinTokens.{role}"));
        (role, tokens.map_or_else(Vec::new, |Tokens(it)| it))
    };
    let read = Newcomer::ALL.map(read);
    for (at, (role, tokens)) in read.iter().enumerate() {
        for (other, others) in read.iter().skip(at + 1) {
            if tokens.iter().any(|one| others.iter().any(|other| one.is(other.expose()))) {
                let key = format!("security.joinTokens.{role}");
                reader
                    .reject(&key, &format!("has a token of the {other} role as well, which proves no role"));
            }
        }
    }
    read.into()
}

fn kubernetes(reader: &Reader) -> Option<KubernetesSettings> {
    let account = |role: Newcomer| {
        let account: Option<ServiceAccount> =
            reader.optional(&format!("security.kubernetes.accounts.{role}"));
        Some((role, account?))
    };
    let accounts: BTreeMap<_, _> = Newcomer::ALL.into_iter().filter_map(account).collect();
    for (role, account) in &accounts {
        if let Some((other, _)) =
            accounts.range((Bound::Excluded(role), Bound::Unbounded)).find(|it| it.1 == account)
        {
            let key = format!("security.kubernetes.accounts.{role}");
            reader.reject(&key, &format!("is the account of the {other} role as well, which proves no role"));
        }
    }
    let settings = KubernetesSettings {
        accounts,
        audience: reader.get("security.kubernetes.audience"),
        api_server: reader.get::<ApiServer>("security.kubernetes.apiServer").0,
        ca_file: reader.get("security.kubernetes.caFile"),
        token_file: reader.get("security.kubernetes.tokenFile"),
    };
    (!settings.accounts.is_empty()).then_some(settings)
}

struct Domain(TrustDomain);

impl Setting for Domain {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "is not a trust domain such as shoal.local".to_owned())
    }
}

struct Tokens(Vec<JoinToken>);

impl Setting for Tokens {
    fn read(text: &str) -> Result<Self, String> {
        tokens_in(Secret::read(text)?.expose()).map(Self)
    }

    fn shown(text: &str) -> String {
        Secret::shown(text)
    }
}

impl Setting for ServiceAccount {
    fn read(text: &str) -> Result<Self, String> {
        let is_allowed = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b".-".contains(&it);
        let is_name = |it: &str| !it.is_empty() && it.bytes().all(is_allowed);
        match text.split_once(':') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self { username: format!("system:serviceaccount:{namespace}:{name}") })
            }
            _ => Err("is not an account such as namespace:name".to_owned()),
        }
    }
}

struct ApiServer(Url);

impl Setting for ApiServer {
    fn read(text: &str) -> Result<Self, String> {
        match Url::parse(text) {
            Ok(url) if url.scheme() == "https" && url.username().is_empty() && url.password().is_none() => {
                Ok(Self(url))
            }
            _ => Err("is not a URL such as https://kubernetes.default.svc".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULT, Settings};
    use super::*;

    const OWN: &str = "certFile: /c, keyFile: /k, caFile: /r";
    const CA: &str = "ca: {certFile: /ca, keyFile: /ca-key}";
    const TOKEN: &str = "hunter2hunter2hunter2";

    fn read(security: &str) -> (SecuritySettings, Result<(), String>) {
        let reader = Reader::new(&format!("security: {{{security}}}"), DEFAULT, |_| None);
        let settings = Settings::read(&reader);
        (settings.security, reader.finish().map_err(|it| it.to_string()))
    }

    #[track_caller]
    fn authority(security: &str) -> AuthoritySettings {
        match read(security) {
            (SecuritySettings::Authority(authority), Ok(())) => *authority,
            other => panic!("{security}: {other:?}"),
        }
    }

    #[track_caller]
    fn check_mistake(security: &str, part: &str) {
        let text = read(security).1.unwrap_err();
        assert!(text.contains(part), "{part:?} in {text:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_gateway_is_its_regions_authority_unless_told_otherwise() {
        let usual = authority("");
        assert_eq!(usual.domain.as_str(), "shoal.local");
        assert_eq!(usual.lives, Duration::from_secs(24 * 3600));
        assert_eq!(usual.ca, CaFiles::Kept("/var/lib/shoal/gateway/ca".into()));
        assert!(usual.own.is_none() && usual.kubernetes.is_none());
        assert!(usual.join_tokens.values().all(Vec::is_empty));

        let shared = authority(&format!("{CA}, {OWN}"));
        assert_eq!(shared.ca, CaFiles::Given { certificate: "/ca".into(), key: "/ca-key".into() });
        assert_eq!(shared.own.map(|it| it.roots), Some("/r".into()));

        let own = read(&format!("autoIssueCert: false, {OWN}"));
        assert!(matches!(own, (SecuritySettings::Files(it), Ok(())) if it.chain == Path::new("/c")));
        assert!(matches!(read("mtls: false"), (SecuritySettings::Off, Ok(()))));
    }

    #[test]
    fn several_tokens_of_a_role_are_good_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, format!("{TOKEN}-old\n{TOKEN}-new\n")).unwrap();
        let read =
            authority(&format!("joinTokens: {{scheduler: '{TOKEN}', sidecar: 'file:{}'}}", file.display()));
        let count = |role| read.join_tokens[&role].len();
        assert_eq!((count(Newcomer::Scheduler), count(Newcomer::Sidecar)), (1, 2));
        assert!(read.join_tokens[&Newcomer::Sidecar][1].is(&format!("{TOKEN}-new")));
    }

    #[test]
    fn accounts_are_known_by_their_user_names() {
        let read = authority("kubernetes: {accounts: {sidecar: 'shoal:sidecar'}}").kubernetes.unwrap();
        assert_eq!(read.accounts[&Newcomer::Sidecar].username, "system:serviceaccount:shoal:sidecar");
        assert_eq!(read.accounts.len(), 1);
        assert_eq!(
            (read.audience.as_str(), read.api_server.as_str()),
            ("shoal", "https://kubernetes.default.svc/")
        );
    }

    #[test]
    fn what_cannot_work_is_named() {
        check_mistake("autoIssueCert: false", "security.autoIssueCert is off");
        check_mistake(OWN, "security.certFile is from another authority");
        check_mistake("certFile: /c", "give all three or none");
        check_mistake("ca: {certFile: /c}", "give both or none");
        check_mistake("certLifetime: 59s", "is not from 1m to 30days");
        check_mistake("certLifetime: 721h", "is not from 1m to 30days");
        check_mistake("trustDomain: 'Shoal Local'", "is not a trust domain");
        check_mistake("joinTokens: {sidecar: hunter2}", "joinTokens.sidecar = \"…\" has 7 bytes");
        check_mistake("joinTokens: {sidecar: 'file:/nowhere'}", "file:/nowhere\" cannot be read");
        check_mistake("joinTokens: {sidecar: ' '}", "holds no token");
        check_mistake(
            &format!("joinTokens: {{sidecar: '{TOKEN} {TOKEN}-2', scheduler: '{TOKEN}-2'}}"),
            "joinTokens.scheduler has a token of the sidecar role",
        );
        for account in ["shoal", "shoal:", "a:b:c", "A:b", "a/b:c"] {
            check_mistake(
                &format!("kubernetes: {{accounts: {{sidecar: '{account}'}}}}"),
                "is not an account",
            );
        }
        check_mistake(
            "kubernetes: {accounts: {sidecar: 'a:b', scheduler: 'a:b'}}",
            "accounts.scheduler is the account of the sidecar role as well",
        );
        check_mistake("kubernetes: {apiServer: 'http://a.example'}", "is not a URL such as https");
        check_mistake("kubernetes: {apiServer: 'https://u:p@a.example'}", "is not a URL such as https");
    }
}
