//! Where a node's certificate comes from, and which gateways it is to be had from: the `security` and
//! `gateways` settings of sidecars and schedulers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use shoal_ops::settings::{Reader, Secret, Setting};
use url::Url;

use crate::join_token::JoinToken;
use crate::material::read_certificates;
use crate::verify::Trusted;

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// There is none, and nothing is encrypted or proven: for tests on one machine.
    Off,
    /// Files that somebody else keeps fresh.
    Files(Files),
    /// The gateway, against a credential.
    Gateway(Joining),
}

/// A certificate's files, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and what lies between it and a root.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The region's roots.
    pub roots: PathBuf,
}

/// How to get a certificate.
#[derive(Clone, Debug)]
pub struct Joining {
    /// What is shown to the gateway.
    pub(crate) credential: Credential,
    /// How the gateway is recognised.
    pub(crate) trusted: Trusted,
    /// Where key and certificate are kept.
    pub(crate) dir: PathBuf,
}

/// What a node proves itself with.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    JoinToken(JoinToken),
    /// The file of a Kubernetes service account's token, which is read each time: it is replaced often.
    ServiceAccount(PathBuf),
}

impl Source {
    /// Reads the settings; mistakes are kept by the reader. What is issued is kept in `dir` unless they say
    /// otherwise.
    pub fn read(reader: &Reader, dir: PathBuf) -> Self {
        Self::find(reader, dir).unwrap_or_else(|| {
            reader.reject(
                "security",
                "names no certificate: give joinToken (the gateway writes one into its join directory) or \
                 serviceAccountToken, or certFile, keyFile and caFile; mtls: false does without on one \
                 machine",
            );
            // Never used; whatever else is wrong is told as for a process that has one.
            Self::Files(Files { chain: PathBuf::new(), key: PathBuf::new(), roots: PathBuf::new() })
        })
    }

    /// The same; `None` where they name no certificate.
    pub fn find(reader: &Reader, dir: PathBuf) -> Option<Self> {
        let joining = joining(reader, reader.optional("security.dir").unwrap_or(dir));
        let files = Files::read(reader, joining.is_some());
        let is_automatic: bool = reader.get("security.autoIssueCert");
        if !reader.get::<bool>("security.mtls") {
            return Some(Self::Off);
        }
        match (files, joining) {
            (Some(files), _) => Some(Self::Files(files)),
            (None, Some(joining)) if is_automatic => Some(Self::Gateway(joining)),
            _ => None,
        }
    }

    /// Where the certificate is kept, where it is issued.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Self::Gateway(joining) => Some(&joining.dir),
            Self::Off | Self::Files(_) => None,
        }
    }

    /// The scheme by which others are dialled.
    const fn scheme(&self) -> &'static str {
        match self {
            Self::Off => "http",
            Self::Files(_) | Self::Gateway(_) => "https",
        }
    }

    /// The addresses of the region's gateways, `scheme://host:port` each.
    pub fn gateways(&self, reader: &Reader) -> Vec<String> {
        let gateways: Vec<_> = reader.values::<GatewayUrl>("gateways").into_iter().map(|it| it.0).collect();
        let scheme = self.scheme();
        if gateways.iter().any(|it| Url::parse(it).is_ok_and(|it| it.scheme() != scheme)) {
            let mtls = if scheme == "https" { "on" } else { "off" };
            reader.reject("gateways", &format!("must begin with {scheme}:// where security.mtls is {mtls}"));
        }
        gateways
    }
}

/// One of `gateways[]`: `scheme://host:port`.
pub struct GatewayUrl(pub String);

impl Setting for GatewayUrl {
    fn read(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).ok().filter(|it| matches!(it.scheme(), "http" | "https"));
        // A port that is the scheme's own is not kept by the URL, and has to be there all the same.
        let parts =
            url.as_ref().and_then(|it| Some((it.host_str()?, it.port_or_known_default()?, it.path())));
        match (url.as_ref(), parts) {
            (Some(url), Some((host, port, "/"))) => Ok(Self(format!("{}://{host}:{port}", url.scheme()))),
            _ => Err("is not of the form https://host:port".into()),
        }
    }
}

impl Files {
    /// Reads `security.certFile`, `keyFile` and `caFile`, all three or none. Where `ca_alone` is right, the last
    /// one may be there by itself, for something else.
    pub fn read(reader: &Reader, ca_alone: bool) -> Option<Self> {
        let file = |key| reader.optional::<PathBuf>(key);
        match (file("security.certFile"), file("security.keyFile"), file("security.caFile")) {
            (Some(chain), Some(key), Some(roots)) => Some(Self { chain, key, roots }),
            (None, None, None) => None,
            (None, None, Some(_)) if ca_alone => None,
            _ => {
                reader.reject("security.certFile", "goes with keyFile and caFile: give all three or none");
                None
            }
        }
    }
}

fn joining(reader: &Reader, dir: PathBuf) -> Option<Joining> {
    let token: Option<Token> = reader.optional("security.joinToken");
    let account: Option<PathBuf> = reader.optional("security.serviceAccountToken");
    let roots: Option<Roots> = reader.optional("security.caFile");
    let credential = match (token, account) {
        (Some(Token(token)), None) => Credential::JoinToken(token),
        (None, Some(file)) => Credential::ServiceAccount(file),
        (None, None) => return None,
        (Some(_), Some(_)) => {
            reader.reject("security.joinToken", "and serviceAccountToken are two credentials: give one");
            return None;
        }
    };
    let pin = match &credential {
        Credential::JoinToken(token) => token.pin().copied(),
        Credential::ServiceAccount(_) => None,
    };
    let trusted = match (roots, pin) {
        (Some(Roots(roots)), _) => Trusted::Roots(roots),
        (None, Some(pin)) => Trusted::Pin(pin),
        (None, None) => {
            reader.reject(
                "security.caFile",
                "is missing: this credential does not name the region's root, so the gateway could not be \
                 told from another",
            );
            return None;
        }
    };
    Some(Joining { credential, trusted, dir })
}

struct Token(JoinToken);

impl Setting for Token {
    fn read(text: &str) -> Result<Self, String> {
        JoinToken::parse(Secret::read(text)?.expose()).map(Self)
    }

    fn shown(text: &str) -> String {
        Secret::shown(text)
    }
}

struct Roots(Arc<RootCertStore>);

impl Setting for Roots {
    fn read(text: &str) -> Result<Self, String> {
        let certificates = read_certificates(text.as_ref()).map_err(|it| format!("cannot be read: {it}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|it| format!("holds what is no root: {it}"))?;
        }
        if roots.is_empty() {
            return Err("holds no certificate".to_owned());
        }
        Ok(Self(Arc::new(roots)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ca, TrustDomain};

    const DEFAULT: &str = "security: {mtls: true, autoIssueCert: true, joinToken: '', serviceAccountToken: '', \
                           caFile: '', certFile: '', keyFile: '', dir: ''}";

    fn read(user: &str) -> (Source, Result<(), String>) {
        let reader = Reader::new(user, DEFAULT, |_| None);
        let source = Source::read(&reader, "/state".into());
        assert_eq!(reader.unread_keys(), [""; 0]);
        (source, reader.finish().map_err(|it| it.to_string()))
    }

    #[test]
    fn gateways_are_dialled_as_securely_as_the_settings_say() {
        let read = |user: &str| {
            let reader = Reader::new(user, "{gateways: [], security: {mtls: true}}", |_| None);
            let source = if reader.get("security.mtls") {
                Source::Files(Files { chain: "/c".into(), key: "/k".into(), roots: "/r".into() })
            } else {
                Source::Off
            };
            let gateways = source.gateways(&reader);
            reader.finish().map(|()| gateways).map_err(|it| it.to_string())
        };
        let good = read("gateways: ['https://gw:65003', 'https://gw/', 'https://[fd00::1]:7']").unwrap();
        assert_eq!(good, ["https://gw:65003", "https://gw:443", "https://[fd00::1]:7"]);
        assert!(read("{gateways: ['http://gw:1'], security: {mtls: false}}").is_ok());
        assert!(read("gateways: ['http://gw:1']").unwrap_err().contains("must begin with https://"));
        for wrong in ["ftp://x", "https://gw:1/path", "gw:1"] {
            assert!(read(&format!("gateways: ['{wrong}']")).unwrap_err().contains("gateways[0]"), "{wrong}");
        }
    }

    #[track_caller]
    fn check_mistake(user: &str, part: &str) {
        let text = read(user).1.unwrap_err();
        assert!(text.contains(part), "{part:?} in {text:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_certificate_comes_from_one_place() {
        let (ca, kept) = Ca::create("a".parse::<TrustDomain>().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("ca.pem");
        std::fs::write(&root, kept.certificate).unwrap();
        let token = JoinToken::random(ca.root());
        let joined = read(&format!("security: {{joinToken: {}}}", token.expose())).0;
        assert!(matches!(joined, Source::Gateway(it) if matches!(it.trusted, Trusted::Pin(_))
            && it.dir == std::path::Path::new("/state")));
        let root = root.display();
        let joined = read(&format!("security: {{serviceAccountToken: /token, caFile: {root}, dir: /d}}")).0;
        assert!(matches!(joined, Source::Gateway(it) if it.dir == std::path::Path::new("/d")));
        let own = read(&format!("security: {{certFile: /c, keyFile: /k, caFile: {root}}}")).0;
        assert!(matches!(own, Source::Files(it) if it.chain == std::path::Path::new("/c")));
        assert!(matches!(read("security: {mtls: false}").0, Source::Off));
    }

    #[test]
    fn what_cannot_prove_anything_is_a_mistake() {
        check_mistake("", "security names no certificate: give joinToken");
        check_mistake("security: {joinToken: hunter2}", "joinToken = \"…\" has 7 bytes");
        check_mistake("security: {joinToken: 'hunter2hunter2hunter2'}", "security.caFile is missing");
        check_mistake("security: {serviceAccountToken: /token}", "security.caFile is missing");
        check_mistake("security: {joinToken: 'hunter2hunter2hunter2', serviceAccountToken: /t}", "give one");
        check_mistake("security: {certFile: /c}", "give all three or none");
        check_mistake("security: {joinToken: 'hunter2hunter2hunter2', caFile: /nowhere}", "cannot be read");
    }
}
