//! How a process comes by its certificate and keeps it fresh.
//!
//! A certificate of one's own is read again when its files change; whoever keeps them does the rest. One from
//! the gateway is asked for at the first start, kept with its key, and renewed at two thirds of its life, over
//! and over until a gateway answers: what is there goes on being used meanwhile, and a process without one
//! goes on trying, for a sidecar has a runtime to serve in either case. The key stays the same, and with it
//! the node's name.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shoal_model::NodeId;
use shoal_ops::Context;
use shoal_ops::private_file;
use shoal_ops::wall_clock::wait_until;
use shoal_proto::certificates_client::CertificatesClient;
use shoal_proto::{IssueReply, IssueRequest, JoinCredential};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;

use crate::ca::{SKEW, assigned_name};
use crate::dial::{Dialer, Expected};
use crate::keychain::{Keychain, newcomer};
use crate::material::{Material, Validity};
use crate::settings::{Credential, Files, Joining, Source};
use crate::spiffe::Role;

/// How long a gateway may take to issue a certificate.
const ANSWER: Duration = Duration::from_secs(10);
/// How long to wait after a failure: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often own files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Who this process is.
pub struct Enrolment {
    /// What it is called.
    pub node: NodeId,
    /// Its certificate, as it comes and is replaced; none where nothing is secured.
    pub keychain: Option<Keychain>,
    enrolled: watch::Receiver<bool>,
}

impl Enrolment {
    /// Waits until there is a certificate, if there is to be one.
    pub async fn complete(&self) {
        // The sender lives as long as the task that would make it true.
        let _ = self.enrolled.clone().wait_for(|it| *it).await;
    }
}

/// Begins to get and keep a certificate for `role`. `gateways` are `https://host:port`; `unproven` names the
/// process where nothing is secured.
///
/// # Errors
/// Where files that are there already cannot be used.
pub fn enrol(
    ctx: &Context,
    source: Source,
    role: Role,
    gateways: Vec<String>,
    unproven: NodeId,
) -> anyhow::Result<Enrolment> {
    let (done, enrolled) = watch::channel(true);
    match source {
        Source::Off => Ok(Enrolment { node: unproven, keychain: None, enrolled }),
        Source::Files(files) => {
            let keychain = follow(ctx, files, role)?;
            let node = keychain.current().map_or(unproven, |it| it.id.node.clone());
            Ok(Enrolment { node, keychain: Some(keychain), enrolled })
        }
        Source::Gateway(joining) => {
            let key = key(&joining.dir).with_context(|| format!("keys in {}", joining.dir.display()))?;
            let keychain = Keychain::empty();
            let node = joining.node(&key)?;
            if let Some(kept) = kept(&joining.dir, role, &node) {
                keychain.replace(kept);
            }
            done.send_replace(keychain.current().is_some());
            let enrolling = Enrolling { joining, gateways, role, node: node.clone(), key, keychain, done };
            let keychain = Some(enrolling.keychain.clone());
            let stopping = ctx.tasks.stopping();
            ctx.tasks.spawn_infallible("certificate", async move {
                stopping.run_until_cancelled(enrolling.run()).await;
            });
            Ok(Enrolment { node, keychain, enrolled })
        }
    }
}

/// When a certificate that the gateway issued is to be renewed: at two thirds of its life, which began when it
/// was made and not when it is dated.
fn renewal(validity: Validity) -> SystemTime {
    let life = validity.until.duration_since(validity.from).unwrap_or_default().saturating_sub(SKEW);
    validity.until - life / 3
}

// === Own files ===

/// Reads a certificate of one's own, and again whenever its files change.
///
/// # Errors
/// Where it cannot be used now. Later a bad one is told of, and the last good one stays.
pub fn follow(ctx: &Context, files: Files, role: Role) -> anyhow::Result<Keychain> {
    let keychain = Keychain::empty();
    let mut seen = stamps(&files);
    keychain.replace(own(&files, role).context("security: own certificate")?);
    let (kept, stopping) = (keychain.clone(), ctx.tasks.stopping());
    ctx.tasks.spawn_infallible("certificate", async move {
        while stopping.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let now = stamps(&files);
            if now == seen {
                continue;
            }
            seen = now;
            match own(&files, role) {
                Ok(material) => {
                    tracing::info!(id = %material.id, until = ?material.validity.until, "certificate read again");
                    kept.replace(material);
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "certificate not read again; the old one stays");
                }
            }
        }
    });
    Ok(keychain)
}

fn own(files: &Files, role: Role) -> anyhow::Result<Material> {
    let material = Material::read(&files.chain, &files.key, &files.roots)?;
    anyhow::ensure!(
        material.id.role == role,
        "{} is for a {}, not for a {role}",
        material.id,
        material.id.role
    );
    Ok(material)
}

/// What tells that a file was replaced.
fn stamps(files: &Files) -> [Option<(SystemTime, u64)>; 3] {
    [&files.chain, &files.key, &files.roots].map(|it| {
        let meta = fs::metadata(it).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    })
}

// === From the gateway ===

struct Enrolling {
    joining: Joining,
    gateways: Vec<String>,
    role: Role,
    node: NodeId,
    key: KeyPair,
    keychain: Keychain,
    done: watch::Sender<bool>,
}

impl Enrolling {
    async fn run(self) {
        loop {
            if let Some(current) = self.keychain.current() {
                wait_until(renewal(current.validity)).await;
            }
            self.renew().await;
        }
    }

    /// Asks the gateways until one has issued a certificate.
    async fn renew(&self) {
        let mut pause = RETRY.0;
        loop {
            match self.ask().await {
                Ok(material) => {
                    tracing::info!(id = %material.id, until = ?material.validity.until, "certificate issued");
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

    /// Asks each gateway; the last error tells of all.
    async fn ask(&self) -> anyhow::Result<Material> {
        let request = IssueRequest {
            signing_request: CertificateParams::default().serialize_request(&self.key)?.der().to_vec().into(),
            credential: self.joining.credential.shown()?,
            host: fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        };
        let mut failure = anyhow::anyhow!("no gateway is configured");
        for gateway in &self.gateways {
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
        anyhow::ensure!(
            material.id.role == self.role && material.id.node == self.node,
            "the gateway issued {} to the {} {}: check the credential and node.id",
            material.id,
            self.role,
            self.node
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
    use base64::Engine as _;
    let claims = token.trim().split('.').nth(1)?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let bound = &claims["kubernetes.io"];
    let name = bound["node"]["name"].as_str().or(bound["pod"]["name"].as_str())?;
    Some(NodeId::new(name))
}

const KEY: &str = "node.key";
const CHAIN: &str = "node.pem";
const ROOTS: &str = "roots.pem";

/// This node's key, made at the first start.
fn key(dir: &Path) -> anyhow::Result<KeyPair> {
    let path = dir.join(KEY);
    if path.exists() {
        return Ok(KeyPair::from_pem(&fs::read_to_string(path)?)?);
    }
    let key = KeyPair::generate()?;
    fs::create_dir_all(dir)?;
    private_file::replace(&path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

fn keep(dir: &Path, chain: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> std::io::Result<()> {
    private_file::replace(&dir.join(ROOTS), pem(roots).as_bytes())?;
    private_file::replace(&dir.join(CHAIN), pem(chain).as_bytes())
}

fn pem(certificates: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let one = |der: &CertificateDer<'_>| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    certificates.iter().map(one).collect()
}

/// The certificate that was kept, where it is still good and this node's.
fn kept(dir: &Path, role: Role, node: &NodeId) -> Option<Material> {
    let material = Material::read(&dir.join(CHAIN), &dir.join(KEY), &dir.join(ROOTS)).ok()?;
    let is_own = material.id.role == role && material.id.node == *node;
    (is_own && SystemTime::now() < material.validity.until).then_some(material)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for lives in [60, 24 * 3600] {
            let lives = Duration::from_secs(lives);
            let validity = Validity { from: made - SKEW, until: made + lives };
            assert_eq!(renewal(validity), made + lives * 2 / 3);
        }
    }

    #[test]
    fn a_service_accounts_token_says_what_it_is_bound_to() {
        use base64::Engine as _;
        let check = |claims: &str, expected: Option<&str>| {
            let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
            let seen = node_of(&format!("e30.{claims}.sig\n"));
            assert_eq!(seen.as_ref().map(NodeId::as_str), expected, "{claims}");
        };
        check(r#"{"kubernetes.io":{"node":{"name":"worker-1"},"pod":{"name":"p"}}}"#, Some("worker-1"));
        check(r#"{"kubernetes.io":{"pod":{"name":"p"}}}"#, Some("p"));
        check(r#"{"kubernetes.io":{}}"#, None);
        check("no json", None);
        assert_eq!(node_of("no token"), None);
    }
}
