//! Joining a region with every credential there is, and with what is none.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[path = "support/kubernetes.rs"]
mod kubernetes;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use shoal_gateway::audit::{Audit, AuditSettings};
use shoal_gateway::issuing::{self, Gateway, Secured};
use shoal_gateway::settings::{DEFAULT, Settings};
use shoal_identity::enrol::enrol;
use shoal_identity::settings::Source;
use shoal_identity::{Ca, Clients, Reception, Role};
use shoal_model::{ByteSize, NodeId};
use shoal_ops::Context;
use shoal_ops::serve::{Limits, Listener};
use shoal_ops::settings::Reader;
use shoal_proto::JoinCredential::{self, JoinToken, ServiceAccountToken};
use shoal_proto::certificates_client::CertificatesClient;
use shoal_proto::{IssueReply, IssueRequest};
use tempfile::TempDir;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use kubernetes::Kubernetes;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// Far above what any test takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway that issues certificates.
struct Region {
    ctx: Context,
    dir: TempDir,
    /// Where newcomers are served as they are.
    plain: SocketAddr,
    /// Where they are served under TLS.
    secured: SocketAddr,
}

impl Region {
    /// With these further `security` settings, as YAML.
    async fn start(security: &str) -> Self {
        let (ctx, dir) = (Context::new("gateway", "0"), tempfile::tempdir().unwrap());
        let Secured { keychain, issuing } = secure(&ctx, &dir, security).unwrap();
        let service = issuing.unwrap().service();
        let mut addresses = Vec::new();
        for keychain in [None, keychain.as_ref()] {
            let listener = Listener::bind("nodes", (HERE, 0).into()).await.unwrap();
            addresses.push(listener.addr());
            let listener = listener.with(Reception::new(keychain, Clients::Any));
            ctx.serve(listener, service.clone(), Limits::new(100));
        }
        Self { ctx, dir, plain: addresses[0], secured: addresses[1] }
    }

    fn join_token(&self, role: &str) -> String {
        fs::read_to_string(self.dir.path().join(format!("join/{role}.token"))).unwrap()
    }

    async fn issue(&self, credential: JoinCredential) -> Result<IssueReply, Status> {
        self.issue_for(request(&CertificateParams::default()), credential, HERE).await
    }

    async fn issue_for(
        &self,
        signing_request: Vec<u8>,
        credential: JoinCredential,
        from: IpAddr,
    ) -> Result<IssueReply, Status> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.plain)).unwrap();
        let channel = endpoint.local_address(Some(from)).connect().await.unwrap();
        let (signing_request, host) = (signing_request.into(), "gateway-1\n".to_owned());
        let request = IssueRequest { signing_request, credential, host };
        CertificatesClient::new(channel).issue(request).await.map(tonic::Response::into_inner)
    }

    async fn check_refused(&self, credential: JoinCredential, code: Code, part: &str) {
        let status = self.issue(credential.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(part), "{part:?} in {status}");
        let (JoinToken(secret) | ServiceAccountToken(secret)) = credential;
        assert!(!status.message().contains(&secret), "{status}");
    }

    fn counted(&self, outcome: &str) -> u64 {
        let text = self.ctx.metrics.encode();
        let name = format!("shoal_gateway_certificates_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|it| it.strip_prefix(&name)).map_or(0, |it| it.parse().unwrap())
    }

    /// Ends the process, as far as a test has one; returns what the audit log holds then.
    async fn end(self) -> String {
        let ended = self.ctx.tasks.shut_down(PATIENCE).await;
        assert!(ended.failure.is_none() && ended.cut.is_empty(), "{ended:?}");
        fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap()
    }
}

/// What secures a gateway that keeps its state in `dir`.
fn secure(ctx: &Context, dir: &TempDir, security: &str) -> anyhow::Result<Secured> {
    let user = format!("{{storage: {{dir: '{}'}}, security: {{{security}}}}}", dir.path().display());
    let reader = Reader::new(&user, DEFAULT, |_| None);
    let settings = Settings::read(&reader);
    reader.finish()?;
    let path = dir.path().join("audit.jsonl");
    let audit = AuditSettings::File { path, max_size: ByteSize(1 << 20), n_kept: 1 };
    let gateway = Gateway { node: NodeId::new("gateway-1"), address: HERE, hosts: Vec::new() };
    issuing::start(settings.security, gateway, Audit::start(audit, ctx), ctx)
}

fn request(params: &CertificateParams) -> Vec<u8> {
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// Whom a certificate names: its common name, and its alternative names.
fn names(reply: &IssueReply) -> (String, Vec<String>) {
    let (_, certificate) = X509Certificate::from_der(&reply.chain[0]).unwrap();
    let shown = |it: &GeneralName<'_>| match it {
        GeneralName::URI(uri) => (*uri).to_owned(),
        GeneralName::IPAddress(bytes) => IpAddr::from(<[u8; 4]>::try_from(*bytes).unwrap()).to_string(),
        other => format!("{other:?}"),
    };
    let extension = certificate.subject_alternative_name().unwrap().unwrap();
    let common = certificate.subject().iter_common_name().next().unwrap().as_str().unwrap();
    (common.to_owned(), extension.value.general_names.iter().map(shown).collect())
}

fn account(token: &str) -> JoinCredential {
    ServiceAccountToken(token.to_owned())
}

#[tokio::test]
async fn a_join_token_proves_its_role_and_no_name() {
    let region = Region::start("").await;
    for role in ["sidecar", "scheduler"] {
        let reply = region.issue(JoinToken(region.join_token(role))).await.unwrap();
        let (common, alternative) = names(&reply);
        assert!(common.starts_with("n-"), "{common}");
        assert_eq!(alternative, [format!("spiffe://shoal.local/{role}/{common}"), "127.0.0.1".into()]);
        assert_eq!((reply.chain.len(), &reply.chain[1..]), (2, &reply.roots[..]));
    }
    assert_eq!(region.counted("issued"), 2);
}

#[tokio::test]
async fn a_pods_token_proves_the_role_of_its_account_and_its_machine() {
    let kubernetes = Kubernetes::start().await;
    let region = Region::start(&kubernetes.settings()).await;
    for (token, id) in [
        ("sidecar-on-node-1", "spiffe://shoal.local/sidecar/node-1"),
        ("scheduler-on-node-1", "spiffe://shoal.local/scheduler/node-1"),
        ("scheduler-in-pod-1", "spiffe://shoal.local/scheduler/pod-1"),
    ] {
        let reply = region.issue(account(token)).await.unwrap();
        assert_eq!(names(&reply).1, [id, "127.0.0.1"], "{token}");
    }
}

#[tokio::test]
async fn what_a_request_asks_to_be_called_is_not_looked_at() {
    let region = Region::start("trustDomain: other.example").await;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "gateway-1");
    let uri = "spiffe://other.example/gateway/gateway-1".try_into().unwrap();
    let host = "gateway-1.example".try_into().unwrap();
    params.subject_alt_names =
        vec![SanType::URI(uri), SanType::DnsName(host), SanType::IpAddress([10, 0, 0, 1].into())];
    let token = JoinToken(region.join_token("sidecar"));
    let reply = region.issue_for(request(&params), token, [127, 0, 0, 7].into()).await.unwrap();
    let (common, alternative) = names(&reply);
    assert!(common.starts_with("n-"), "{common}");
    assert_eq!(alternative, [format!("spiffe://other.example/sidecar/{common}"), "127.0.0.7".into()]);
}

#[tokio::test]
async fn a_credential_that_proves_nothing_is_refused_with_advice() {
    let kubernetes = Kubernetes::start().await;
    let region = Region::start(&kubernetes.settings()).await;
    let denied = Code::PermissionDenied;
    region.check_refused(JoinToken("hunter2hunter2hunter2".into()), denied, "security.joinTokens").await;
    region.check_refused(account("unknown"), denied, "Kubernetes does not know it").await;
    region.check_refused(account("for-another-audience"), denied, "project it with that audience").await;
    region.check_refused(account("of-another-account"), denied, "security.kubernetes.accounts").await;
    region.check_refused(account("sidecar-without-node"), denied, "Kubernetes 1.30").await;
    assert_eq!(region.counted("refused"), 5);
    let log = region.end().await;
    assert_eq!(log.matches(r#""event":"certificate""#).count(), 5);
    assert_eq!(log.matches(r#""outcome":"refused""#).count(), 5);
    assert!(!log.contains("hunter2") && !log.contains("another-account"), "{log}");
}

#[tokio::test]
async fn a_pods_token_is_of_no_use_where_accounts_do_not_join() {
    let region = Region::start("").await;
    region.check_refused(account("sidecar-on-node-1"), Code::PermissionDenied, "takes none").await;
}

#[tokio::test]
async fn whoever_cannot_be_decided_about_may_come_again() {
    let kubernetes = Kubernetes::start().await;
    let region = Region::start(&kubernetes.settings()).await;
    let undecided = Code::Unavailable;
    region.check_refused(account("fails"), undecided, "status 500").await;
    region.check_refused(account("makes-no-sense"), undecided, "the answer is none").await;
    region.check_refused(account("too-long"), undecided, "length limit exceeded").await;
    region.check_refused(account("hangs"), undecided, "no answer within 3s").await;
    kubernetes.replace_own_token("Bearer of nothing");
    region.check_refused(account("sidecar-on-node-1"), undecided, "system:auth-delegator").await;
    kubernetes.remove_own_token();
    region.check_refused(account("sidecar-on-node-1"), undecided, "No such file").await;
    kubernetes.replace_own_token(kubernetes::OWN_TOKEN);
    assert!(region.issue(account("sidecar-on-node-1")).await.is_ok());
    assert_eq!((region.counted("undecided"), region.counted("issued")), (6, 1));
}

#[tokio::test]
async fn a_request_that_is_none_is_refused() {
    let region = Region::start("").await;
    let token = || JoinToken(region.join_token("sidecar"));
    let good = request(&CertificateParams::default());
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    for wrong in
        [Vec::new(), b"hunter2".to_vec(), good[..good.len() / 2].to_vec(), altered, vec![0x30; 20_000]]
    {
        let length = wrong.len();
        let status = region.issue_for(wrong, token(), HERE).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{length} bytes: {status}");
    }
    assert!(region.issue_for(vec![0x30; 100_000], token(), HERE).await.is_err());
    assert!(region.issue_for(good, token(), HERE).await.is_ok());
}

#[tokio::test]
async fn who_guesses_is_soon_not_listened_to_and_others_are() {
    let region = Region::start("").await;
    let guess = async |n: u32| region.issue(JoinToken(format!("hunter2hunter2hunter{n}"))).await.unwrap_err();
    let codes = join_all((0..50).map(guess)).await;
    let count = |code| codes.iter().filter(|it| it.code() == code).count();
    assert!(count(Code::PermissionDenied) >= 10);
    assert_eq!(count(Code::PermissionDenied) + count(Code::ResourceExhausted), 50);
    assert!(count(Code::ResourceExhausted) > 0);
    let (token, elsewhere) = (JoinToken(region.join_token("sidecar")), [127, 0, 0, 7].into());
    let request = request(&CertificateParams::default());
    assert!(region.issue_for(request, token, elsewhere).await.is_ok());
}

#[tokio::test]
async fn a_sidecar_joins_under_tls_knowing_its_token_only() {
    let region = Region::start("").await;
    let default = "security: {mtls: true, autoIssueCert: true, joinToken: '', serviceAccountToken: '', \
                   caFile: '', certFile: '', keyFile: '', dir: ''}";
    let user = format!("security: {{joinToken: {}}}", region.join_token("sidecar").trim());
    let reader = Reader::new(&user, default, |_| None);
    let source = Source::read(&reader, region.dir.path().join("node"));
    reader.finish().unwrap();
    let gateway = vec![format!("https://{}", region.secured)];
    let enrolment = enrol(&region.ctx, source, Role::Sidecar, gateway, NodeId::new("unproven")).unwrap();
    tokio::time::timeout(PATIENCE, enrolment.complete()).await.unwrap();
    let id = enrolment.keychain.unwrap().current().unwrap().id.to_string();
    assert_eq!(id, format!("spiffe://shoal.local/sidecar/{}", enrolment.node));
}

#[tokio::test]
async fn a_gateways_own_certificate_is_of_the_domain_that_it_issues_for() {
    let (ctx, dir) = (Context::new("gateway", "0"), tempfile::tempdir().unwrap());
    let (_, ca) = Ca::create("shoal.local".parse().unwrap()).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mut params = CertificateParams::default();
    let started = ["other.example", "shoal.local"].map(|domain| {
        let uri = format!("spiffe://{domain}/gateway/gateway-1").try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(uri)];
        let key = KeyPair::generate().unwrap();
        let own = file("own.pem", &params.self_signed(&key).unwrap().pem());
        let security = format!(
            "certFile: {own}, caFile: {own}, keyFile: {}, ca: {{certFile: {}, keyFile: {}}}",
            file("own.key", &key.serialize_pem()),
            file("ca.pem", &ca.certificate),
            file("ca.key", &ca.key),
        );
        secure(&ctx, &dir, &security)
    });
    let [other, same] = started;
    let refused = other.err().unwrap().to_string();
    assert!(refused.contains("not of the trust domain shoal.local"), "{refused}");
    let id = same.unwrap().keychain.unwrap().current().unwrap().id.to_string();
    assert_eq!(id, "spiffe://shoal.local/gateway/gateway-1");
}
