//! A certificate from the gateway: asked for, kept, renewed.
//!
//! It is asked for over and over until a gateway answers: what is there goes on being used meanwhile, and a
//! process without one goes on trying, for a sidecar has a runtime to serve in either case. The key stays the
//! same, and with it the node's name. What was kept is used after a restart only where it is still true: of
//! this region's authority, for this node, and for the address that it tells others.

use std::fs;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pem::Pem;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shoal_model::NodeId;
use shoal_ops::Context;
use shoal_ops::private_file;
use shoal_ops::wall_clock::wait_outside;
use shoal_proto::certificates_client::CertificatesClient;
use shoal_proto::{IssueReply, IssueRequest, JoinCredential};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;

use super::{Applicant, Enrolment};
use crate::ca::{SKEW, assigned_name};
use crate::dial::{Dialer, Expected};
use crate::keychain::{Keychain, newcomer};
use crate::material::{Material, Validity, read_certificates};
use crate::settings::{Credential, Joining};
use crate::spiffe::Role;

/// How long a gateway may take to issue a certificate.
const ANSWER: Duration = Duration::from_secs(10);
/// How long to wait after a failure: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A certificate that was issued is not asked for again before: a clock that is far ahead would have it asked
/// for without end.
const REST: Duration = Duration::from_secs(20);

const KEY: &str = "node.key";
const CHAIN: &str = "node.pem";
const ROOTS: &str = "roots.pem";

/// Begins to get and keep a certificate.
pub(super) fn join(ctx: &Context, joining: Joining, applicant: Applicant) -> anyhow::Result<Enrolment> {
    let key = key(&joining.dir).with_context(|| format!("keys in {}", joining.dir.display()))?;
    let node = joining.node(&key)?;
    let keychain = Keychain::empty();
    if let Some(kept) = kept(&joining, &applicant, &node) {
        keychain.replace(kept);
    }
    let (done, enrolled) = watch::channel(keychain.current().is_some());
    let joiner = Joiner { joining, applicant, node: node.clone(), key, keychain: keychain.clone(), done };
    let stopping = ctx.tasks.stopping();
    ctx.tasks.spawn_infallible("certificate", async move {
        stopping.run_until_cancelled(joiner.run()).await;
    });
    Ok(Enrolment { node, keychain: Some(keychain), enrolled })
}

/// When a certificate is not to be renewed yet: in the first two thirds of its life, which began when it was made and
/// not when it is dated. One that is dated in the future was made by a clock that has been set back since, and nobody
/// believes it.
fn fresh(validity: Validity) -> Range<SystemTime> {
    let life = validity.until.duration_since(validity.from).unwrap_or_default().saturating_sub(SKEW);
    validity.from..validity.until - life / 3
}

struct Joiner {
    joining: Joining,
    applicant: Applicant,
    node: NodeId,
    key: KeyPair,
    keychain: Keychain,
    done: watch::Sender<bool>,
}

impl Joiner {
    async fn run(self) {
        loop {
            if let Some(current) = self.keychain.current() {
                wait_outside(&fresh(current.validity)).await;
            }
            self.renew().await;
            sleep(REST).await;
        }
    }

    /// Asks the gateways until one has issued a certificate.
    async fn renew(&self) {
        let mut pause = RETRY.0;
        loop {
            match self.ask().await {
                Ok(material) => {
                    tracing::info!(id = %material.id, until = ?material.validity.until, "certificate issued");
                    self.warn_of_address(&material);
                    self.keychain.replace(material);
                    self.done.send_replace(true);
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), again_in = ?pause, "no certificate");
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    /// An address that the certificate does not prove has to be proven to each scheduler by answering there.
    fn warn_of_address(&self, material: &Material) {
        let told = self.applicant.address.map(|it| it.to_canonical());
        if let Some(told) = told.filter(|it| !material.addresses.contains(it)) {
            tracing::warn!(
                advertised = %told,
                seen = ?material.addresses,
                "the gateway sees this node at another address than it advertises; schedulers will dial back"
            );
        }
    }

    /// Asks each gateway; the last error tells of all.
    async fn ask(&self) -> anyhow::Result<Material> {
        let request = IssueRequest {
            signing_request: CertificateParams::default().serialize_request(&self.key)?.der().to_vec().into(),
            credential: self.joining.credential.shown()?,
            host: fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        };
        let mut failure = anyhow::anyhow!("no gateway is configured");
        for gateway in &self.applicant.gateways {
            let issued = timeout(ANSWER, self.issue(gateway, request.clone())).await;
            let issued = issued.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {ANSWER:?}")));
            match issued.and_then(|it| self.take(it)) {
                Ok(material) => return Ok(material),
                Err(error) => failure = error.context(format!("gateway {gateway}")),
            }
        }
        Err(failure)
    }

    async fn issue(&self, gateway: &str, request: IssueRequest) -> anyhow::Result<IssueReply> {
        let dialer = Dialer::with(newcomer(self.joining.trusted.clone()));
        let endpoint = Endpoint::from_shared(gateway.to_owned())?;
        let connector = dialer.connector(Expected::Any(Role::Gateway));
        let channel = endpoint.connect_with_connector(connector).await?;
        Ok(CertificatesClient::new(channel).issue(request).await?.into_inner())
    }

    /// Puts a certificate to use that was issued, and keeps it.
    fn take(&self, reply: IssueReply) -> anyhow::Result<Material> {
        let certificates =
            |list: Vec<bytes::Bytes>| list.into_iter().map(|it| CertificateDer::from(it.to_vec()));
        let chain: Vec<_> = certificates(reply.chain).collect();
        let roots: Vec<_> = certificates(reply.roots).collect();
        let der = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let material = Material::new(chain.clone(), der, roots.clone())?;
        let (id, role, node) = (&material.id, self.applicant.role, &self.node);
        anyhow::ensure!(
            id.role == role && id.node == *node,
            "the gateway issued {id} to the {role} {node}: check the credential and its bound node",
        );
        // A certificate that is not kept is asked for again after a restart.
        if let Err(error) = keep(&self.joining.dir, &chain, &roots) {
            tracing::warn!(dir = %self.joining.dir.display(), %error, "certificate not kept");
        }
        Ok(material)
    }
}

impl Joining {
    /// What the gateway will call this node.
    fn node(&self, key: &KeyPair) -> anyhow::Result<NodeId> {
        match &self.credential {
            Credential::JoinToken(_) => Ok(NodeId::new(&assigned_name(key))),
            Credential::ServiceAccount(file) => {
                let token = fs::read_to_string(file).with_context(|| file.display().to_string())?;
                node_of(&token)
                    .with_context(|| format!("{}: the token is bound to no node and no pod", file.display()))
            }
        }
    }
}

impl Credential {
    fn shown(&self) -> anyhow::Result<JoinCredential> {
        Ok(match self {
            Self::JoinToken(token) => JoinCredential::JoinToken(token.expose().to_owned()),
            Self::ServiceAccount(file) => {
                let token = fs::read_to_string(file).with_context(|| file.display().to_string())?;
                JoinCredential::ServiceAccountToken(token.trim().to_owned())
            }
        })
    }
}

/// The node, or else the pod, that a service account's token says it is bound to. Nothing is verified: this
/// is how a process learns what it will be called.
fn node_of(token: &str) -> Option<NodeId> {
    let claims = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let bound = claims.get("kubernetes.io")?;
    let name_of = |what: &str| bound.get(what)?.get("name")?.as_str();
    name_of("node").or_else(|| name_of("pod")).map(NodeId::new)
}

/// This node's key, made at the first start.
fn key(dir: &Path) -> anyhow::Result<KeyPair> {
    let path = dir.join(KEY);
    if path.exists() {
        return Ok(KeyPair::from_pem(&fs::read_to_string(path)?)?);
    }
    let key = KeyPair::generate()?;
    private_file::create_dir(dir)?;
    private_file::replace(&path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

fn keep(dir: &Path, chain: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> std::io::Result<()> {
    private_file::replace(&dir.join(ROOTS), pem(roots).as_bytes())?;
    private_file::replace(&dir.join(CHAIN), pem(chain).as_bytes())
}

/// Certificates as a PEM file has them.
pub(super) fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let certificates: Vec<_> = certificates.iter().map(|it| Pem::new("CERTIFICATE", it.to_vec())).collect();
    pem::encode_many(&certificates)
}

/// The certificate that was kept, where it still says what is true.
fn kept(joining: &Joining, applicant: &Applicant, node: &NodeId) -> Option<Material> {
    let dir = &joining.dir;
    let material = Material::read(&dir.join(CHAIN), &dir.join(KEY), &dir.join(ROOTS)).ok()?;
    let roots = read_certificates(&dir.join(ROOTS)).ok()?;
    let is_own = material.id.role == applicant.role && material.id.node == *node;
    let is_here = applicant.address.is_none_or(|it: IpAddr| material.addresses.contains(&it.to_canonical()));
    let is_good = SystemTime::now() < material.validity.until && joining.trusted.includes(&roots);
    (is_own && is_here && is_good).then_some(material)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Trusted;
    use crate::{Ca, Grant, JoinToken, Request, SpiffeId};

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for lives in [60, 24 * 3600] {
            let lives = Duration::from_secs(lives);
            let validity = Validity { from: made - SKEW, until: made + lives };
            assert_eq!(fresh(validity), made - SKEW..made + lives * 2 / 3);
        }
    }

    #[test]
    fn a_service_accounts_token_says_what_it_is_bound_to() {
        let check = |claims: &str, expected: Option<&str>| {
            let claims = URL_SAFE_NO_PAD.encode(claims);
            let seen = node_of(&format!("e30.{claims}.sig\n"));
            assert_eq!(seen.as_ref().map(NodeId::as_str), expected, "{claims}");
        };
        check(r#"{"kubernetes.io":{"node":{"name":"worker-1"},"pod":{"name":"p"}}}"#, Some("worker-1"));
        check(r#"{"kubernetes.io":{"pod":{"name":"p"}}}"#, Some("p"));
        check(r#"{"kubernetes.io":{}}"#, None);
        check("no json", None);
        assert_eq!(node_of("no token"), None);
    }

    #[test]
    fn what_was_kept_is_used_while_it_says_what_is_true() {
        let (ca, other) =
            (Ca::create("a".parse().unwrap()).unwrap().0, Ca::create("a".parse().unwrap()).unwrap().0);
        let dir = tempfile::tempdir().unwrap();
        let joining = |ca: &Ca| Joining {
            credential: Credential::JoinToken(JoinToken::random(ca.root())),
            trusted: Trusted::Pin(*JoinToken::random(ca.root()).pin().unwrap()),
            dir: dir.path().to_owned(),
        };
        let applicant = |role, address: &str| Applicant {
            role,
            unproven: NodeId::new("x"),
            address: Some(address.parse().unwrap()),
            gateways: Vec::new(),
        };
        let key = key(dir.path()).unwrap();
        let node = joining(&ca).node(&key).unwrap();
        let issue = |lives| {
            let der = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
            let id = SpiffeId::new(ca.domain().clone(), Role::Sidecar, node.as_str()).unwrap();
            let addresses = vec!["10.0.0.7".parse().unwrap()];
            let grant = Grant { id, addresses, hosts: Vec::new(), lives };
            let leaf = ca.sign(SystemTime::now(), &Request::parse(&der).unwrap(), &grant).unwrap();
            keep(dir.path(), &[leaf], std::slice::from_ref(ca.root())).unwrap();
        };
        let here = applicant(Role::Sidecar, "10.0.0.7");
        assert!(kept(&joining(&ca), &here, &node).is_none(), "nothing was kept yet");
        issue(Duration::from_secs(3600));
        assert!(kept(&joining(&ca), &here, &node).is_some());
        assert!(kept(&joining(&other), &here, &node).is_none(), "another region's token");
        assert!(kept(&joining(&ca), &applicant(Role::Sidecar, "10.0.0.8"), &node).is_none(), "moved");
        assert!(
            kept(&joining(&ca), &applicant(Role::Scheduler, "10.0.0.7"), &node).is_none(),
            "another role"
        );
        assert!(kept(&joining(&ca), &here, &NodeId::new("y")).is_none(), "another node");
        issue(Duration::ZERO);
        assert!(kept(&joining(&ca), &here, &node).is_none(), "it has ended");
    }
}
