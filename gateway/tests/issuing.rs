//! Joining a region with every credential there is, and with what is none.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[path = "support/kubernetes.rs"]
mod kubernetes;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use shoal_gateway::audit::{Audit, AuditSettings};
use shoal_gateway::issuing::{self, Gateway, Secured};
use shoal_gateway::settings::{DEFAULT, Settings};
use shoal_identity::enrol::{Applicant, enrol};
use shoal_identity::settings::Source;
use shoal_identity::{Ca, Clients, Grant, KeptCa, Reception, Request, Role, SpiffeId};
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

use kubernetes::{Kubernetes, token_for};

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

fn account(jti: &str) -> JoinCredential {
    ServiceAccountToken(token_for("shoal", jti))
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
async fn kubernetes_is_not_asked_about_what_cannot_be_a_good_token() {
    let kubernetes = Kubernetes::start().await;
    let region = Region::start(&kubernetes.settings()).await;
    let denied = Code::PermissionDenied;
    for none in ["hunter2hunter2hunter2", "hunter.two.three", "e30.e30"] {
        region
            .check_refused(ServiceAccountToken(none.into()), denied, "service account token: is none")
            .await;
    }
    let for_others = token_for("https://kubernetes.default.svc", "sidecar-on-node-1");
    region.check_refused(ServiceAccountToken(for_others), denied, "project it with that audience").await;
    assert_eq!(kubernetes.n_reviews(), 0);
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
async fn who_guesses_is_soon_not_listened_to_and_whoever_knows_is() {
    let region = Region::start("").await;
    let guess = async |n: u32| region.issue(JoinToken(format!("hunter2hunter2hunter{n}"))).await.unwrap_err();
    let codes = join_all((0..50).map(guess)).await;
    let count = |code| codes.iter().filter(|it| it.code() == code).count();
    assert!(count(Code::PermissionDenied) >= 10);
    assert_eq!(count(Code::PermissionDenied) + count(Code::ResourceExhausted), 50);
    assert!(count(Code::ResourceExhausted) > 0);
    // At the same address a good token is as good as ever.
    for role in ["sidecar", "scheduler"] {
        assert!(region.issue(JoinToken(region.join_token(role))).await.is_ok());
    }
    let told = count(Code::PermissionDenied);
    assert_eq!(region.end().await.matches(r#""outcome":"refused""#).count(), told);
}

#[tokio::test]
async fn many_at_once_cannot_have_kubernetes_asked_without_end() {
    let kubernetes = Kubernetes::start().await;
    let region = Region::start(&kubernetes.settings()).await;
    let guess = async |_: u32| region.issue(account("unknown")).await.unwrap_err();
    let codes = join_all((0..50).map(guess)).await;
    let n_denied = codes.iter().filter(|it| it.code() == Code::PermissionDenied).count();
    assert_eq!(kubernetes.n_reviews(), n_denied);
    assert!((10..50).contains(&n_denied), "{n_denied}");
    let elsewhere = [127, 0, 0, 7].into();
    let good = request(&CertificateParams::default());
    assert!(region.issue_for(good, account("sidecar-on-node-1"), elsewhere).await.is_ok());
}

#[tokio::test]
async fn that_kubernetes_fails_is_nobodys_fault_and_fills_no_log() {
    let kubernetes = Kubernetes::start().await;
    let region = Region::start(&kubernetes.settings()).await;
    for _ in 0..30 {
        region.check_refused(account("fails"), Code::Unavailable, "status 500").await;
    }
    assert!(region.issue(account("sidecar-on-node-1")).await.is_ok());
    assert_eq!(region.counted("undecided"), 30);
    let n_told = region.end().await.matches(r#""outcome":"undecided""#).count();
    assert!((10..30).contains(&n_told), "{n_told}");
}

#[tokio::test]
async fn one_name_gets_only_so_many_certificates() {
    let region = Region::start("").await;
    let (same, token) = (request(&CertificateParams::default()), region.join_token("sidecar"));
    let issue =
        async |request: &[u8]| region.issue_for(request.to_vec(), JoinToken(token.clone()), HERE).await;
    let mut n_issued = 0;
    let refused = loop {
        match issue(&same).await {
            Ok(_) => n_issued += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("certificates for this name"), "{refused}");
    assert!(n_issued >= 6, "{n_issued}");
    assert!(issue(&request(&CertificateParams::default())).await.is_ok(), "another name");
    let log = region.end().await;
    assert_eq!(log.matches(r#""event":"certificate""#).count(), n_issued + 1);
}

/// Joins as a sidecar that knows its join token only; returns what it is called.
async fn join(region: &Region) -> String {
    let default = "security: {mtls: true, autoIssueCert: true, joinToken: '', serviceAccountToken: '', \
                   caFile: '', certFile: '', keyFile: '', dir: ''}";
    let user = format!("security: {{joinToken: {}}}", region.join_token("sidecar").trim());
    let reader = Reader::new(&user, default, |_| None);
    let source = Source::read(&reader, region.dir.path().join("node"));
    reader.finish().unwrap();
    let applicant = Applicant {
        role: Role::Sidecar,
        unproven: NodeId::new("unproven"),
        address: None,
        gateways: vec![format!("https://{}", region.secured)],
    };
    let enrolment = enrol(&region.ctx, source, applicant).unwrap();
    tokio::time::timeout(PATIENCE, enrolment.complete()).await.unwrap();
    enrolment.keychain.unwrap().current().unwrap().id.to_string()
}

#[tokio::test]
async fn a_sidecar_joins_under_tls_knowing_its_token_only() {
    let id = join(&Region::start("").await).await;
    assert!(id.starts_with("spiffe://shoal.local/sidecar/n-"), "{id}");
}

// === An authority and a certificate from outside ===

/// Files of an authority, and of a gateway's certificate.
struct Outside(TempDir);

impl Outside {
    /// With the authority `ca`, and a certificate of `issuer` that comes without its root.
    fn new((ca, kept): &(Ca, KeptCa), issuer: &Ca) -> Self {
        let it = Self(tempfile::tempdir().unwrap());
        it.write("ca.pem", &kept.certificate);
        it.write("ca.key", &kept.key);
        let key = KeyPair::generate().unwrap();
        let signing = CertificateParams::default().serialize_request(&key).unwrap();
        let id = SpiffeId::new(ca.domain().clone(), Role::Gateway, "gateway-1").unwrap();
        let grant = Grant { id, addresses: vec![HERE], hosts: Vec::new(), lives: Duration::from_secs(3600) };
        let leaf = issuer.sign(SystemTime::now(), &Request::parse(signing.der()).unwrap(), &grant).unwrap();
        let own = STANDARD.encode(&leaf);
        it.write("own.pem", &format!("-----BEGIN CERTIFICATE-----\n{own}\n-----END CERTIFICATE-----\n"));
        it.write("own.key", &key.serialize_pem());
        it
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// The `security` settings, as YAML.
    fn settings(&self) -> String {
        let dir = self.0.path().display();
        format!(
            "certFile: {dir}/own.pem, keyFile: {dir}/own.key, caFile: {dir}/ca.pem, \
             ca: {{certFile: {dir}/ca.pem, keyFile: {dir}/ca.key}}"
        )
    }
}

fn authority() -> (Ca, KeptCa) {
    Ca::create("shoal.local".parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_gateway_with_a_certificate_from_outside_is_recognised_by_the_root_in_a_token() {
    let ca = authority();
    let id = join(&Region::start(&Outside::new(&ca, &ca.0).settings()).await).await;
    assert!(id.starts_with("spiffe://shoal.local/sidecar/n-"), "{id}");
}

#[tokio::test]
async fn a_certificate_that_its_own_nodes_would_not_believe_is_refused_at_the_start() {
    let (ctx, dir) = (Context::new("gateway", "0"), tempfile::tempdir().unwrap());
    let outside = Outside::new(&authority(), &authority().0);
    let error = format!("{:#}", secure(&ctx, &dir, &outside.settings()).err().unwrap());
    for part in ["own.pem", "ca.pem", "does not lead to the authority's root"] {
        assert!(error.contains(part), "{part:?} in {error:?}");
    }
}
