//! What a credential proves, and no more: a role, and of some credentials a name.
//!
//! A join token is shared by all processes of a role, so it names nobody: its bearer is called after its key.
//! A service account's token is bound to a pod, and Kubernetes vouches for the machine that the pod runs on;
//! that is what a sidecar is called, for it serves one machine. A scheduler may go by its pod's name where
//! Kubernetes is too old to tell the machine. No credential proves an address: the one that the connection
//! comes from is the only one. And none makes a gateway of this region; that of another one is a role of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jsonwebtoken::dangerous::insecure_decode;
use serde::Deserialize;
use shoal_identity::{Grant, Role, SpiffeId, TrustDomain};

use crate::settings::ServiceAccount;

/// The machine of a token's pod, since Kubernetes 1.30.
const NODE: &str = "authentication.kubernetes.io/node-name";
const POD: &str = "authentication.kubernetes.io/pod-name";

/// Who may join a region. Its own gateways do not: they have the authority's key, or certificates from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Newcomer {
    /// Tells nodes whom to ask.
    Scheduler,
    /// Serves the runtime of one machine.
    Sidecar,
    /// The gateway of another region.
    Region,
}

impl Newcomer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Scheduler, Self::Sidecar, Self::Region];
}

impl From<Newcomer> for Role {
    fn from(newcomer: Newcomer) -> Self {
        match newcomer {
            Newcomer::Scheduler => Self::Scheduler,
            Newcomer::Sidecar => Self::Sidecar,
            Newcomer::Region => Self::Region,
        }
    }
}

impl fmt::Display for Newcomer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Role::from(*self).fmt(f)
    }
}

/// What a good credential says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// What its bearer is for.
    pub(super) role: Newcomer,
    /// What its bearer is called; none where it names nobody.
    pub(super) name: Option<String>,
}

/// What Kubernetes says of a token: the `status` of a TokenReview.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenStatus {
    authenticated: bool,
    audiences: Vec<String>,
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    extra: BTreeMap<String, Vec<String>>,
}

/// Why a credential does not let its bearer in. The text is for the bearer's operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(
        "join token: none of this region's; take one from the gateway's security.joinTokens, or from the file \
         that its log names"
    )]
    JoinToken,
    #[error(
        "service account token: this gateway takes none; name the accounts in its \
         security.kubernetes.accounts, or give a join token"
    )]
    NoKubernetes,
    #[error("service account token: is none; project one with serviceAccountToken")]
    NoToken,
    #[error(
        "service account token: Kubernetes does not know it; it may have ended, or be of another cluster"
    )]
    NotAuthenticated,
    #[error("service account token: not made for {0:?}; project it with that audience")]
    Audience(String),
    #[error(
        "service account token: {0:?} is in none of the gateway's security.kubernetes.accounts; run the pod as \
         an account that is"
    )]
    Account(String),
    #[error(
        "service account token: names no node; a {0} needs a token that is bound to its pod, and Kubernetes \
         1.30 or newer; or give it a join token"
    )]
    NoName(Newcomer),
    #[error("service account token: {0:?} cannot be the name of a node")]
    Name(String),
}

/// What a token says of itself that is looked at here. It is believed of nothing; Kubernetes decides.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audiences,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// Whether a token is worth asking Kubernetes about: what is none cannot be good, nor what says that it was made
/// for others.
pub(super) fn check_presented(token: &str, audience: &str) -> Result<(), Refused> {
    let claims = insecure_decode::<Claims>(token.trim()).map_err(|_| Refused::NoToken)?.claims;
    let is_for_us = match claims.aud {
        Audiences::One(it) => it == audience,
        Audiences::Several(several) => several.iter().any(|it| it == audience),
    };
    if is_for_us { Ok(()) } else { Err(Refused::Audience(audience.to_owned())) }
}

/// What a token proves that Kubernetes was asked about.
pub(super) fn reviewed(
    status: TokenStatus,
    audience: &str,
    accounts: &BTreeMap<Newcomer, ServiceAccount>,
) -> Result<Proof, Refused> {
    let TokenStatus { authenticated, audiences, user: User { username, mut extra } } = status;
    if !authenticated {
        return Err(Refused::NotAuthenticated);
    }
    // An API server that knows nothing of audiences names none, and has checked none.
    if !audiences.iter().any(|it| it == audience) {
        return Err(Refused::Audience(audience.to_owned()));
    }
    let Some((&role, _)) = accounts.iter().find(|(_, it)| it.username == username) else {
        return Err(Refused::Account(username));
    };
    let mut single = |key| match extra.remove(key).as_deref() {
        Some([one]) => Some(one.clone()),
        _ => None,
    };
    let name = match role {
        Newcomer::Sidecar => single(NODE),
        Newcomer::Scheduler | Newcomer::Region => single(NODE).or_else(|| single(POD)),
    };
    if name.is_none() {
        return Err(Refused::NoName(role));
    }
    Ok(Proof { role, name })
}

/// What the certificate of a bearer says that comes from `address` and would be called `assigned` after its
/// key.
pub(super) fn grant(
    domain: &TrustDomain,
    proof: Proof,
    assigned: String,
    address: IpAddr,
    lives: Duration,
) -> Result<Grant, Refused> {
    let name = proof.name.unwrap_or(assigned);
    match SpiffeId::new(domain.clone(), proof.role.into(), &name) {
        Ok(id) => Ok(Grant { id, addresses: vec![address], hosts: Vec::new(), lives }),
        Err(_) => Err(Refused::Name(name)),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};
    use shoal_ops::settings::Setting as _;

    use super::*;

    const LIVES: Duration = Duration::from_secs(60);

    #[track_caller]
    fn check(status: Value, expected: Result<(Newcomer, &str), Refused>) {
        let accounts = [(Newcomer::Scheduler, "shoal:scheduler"), (Newcomer::Sidecar, "shoal:sidecar")]
            .map(|(role, account)| (role, ServiceAccount::read(account).unwrap()))
            .into();
        let read = serde_json::from_value(status.clone()).unwrap();
        let expected = expected.map(|(role, name)| Proof { role, name: Some(name.to_owned()) });
        assert_eq!(reviewed(read, "shoal", &accounts), expected, "{status}");
    }

    fn status(account: &str, extra: Value) -> Value {
        let username = format!("system:serviceaccount:shoal:{account}");
        json!({"authenticated": true, "audiences": ["shoal"], "user": {
            "username": username, "uid": "7", "groups": ["system:authenticated"], "extra": extra}})
    }

    #[test]
    fn a_reviewed_token_proves_the_role_of_its_account_and_the_machine_of_its_pod() {
        let both = json!({NODE: ["node-1"], POD: ["pod-1"]});
        check(status("sidecar", both.clone()), Ok((Newcomer::Sidecar, "node-1")));
        check(status("scheduler", both), Ok((Newcomer::Scheduler, "node-1")));
        check(status("scheduler", json!({POD: ["pod-1"]})), Ok((Newcomer::Scheduler, "pod-1")));
    }

    #[test]
    fn a_sidecar_whose_machine_is_not_proven_is_refused() {
        for extra in [json!({POD: ["pod-1"]}), json!({}), json!({NODE: []}), json!({NODE: ["a", "b"]})] {
            check(status("sidecar", extra), Err(Refused::NoName(Newcomer::Sidecar)));
        }
        check(status("scheduler", json!({})), Err(Refused::NoName(Newcomer::Scheduler)));
    }

    #[test]
    fn a_token_that_is_not_for_this_region_is_refused() {
        check(json!({}), Err(Refused::NotAuthenticated));
        check(json!({"authenticated": false, "error": "expired"}), Err(Refused::NotAuthenticated));
        let mut other = status("sidecar", json!({NODE: ["node-1"]}));
        for audiences in [json!([]), json!(["https://kubernetes.default.svc"])] {
            other["audiences"] = audiences;
            check(other.clone(), Err(Refused::Audience("shoal".to_owned())));
        }
        let account = || Refused::Account("system:serviceaccount:shoal:default".to_owned());
        check(status("default", json!({NODE: ["node-1"]})), Err(account()));
        let human = json!({"authenticated": true, "audiences": ["shoal"], "user": {"username": "ann"}});
        check(human, Err(Refused::Account("ann".to_owned())));
    }

    #[track_caller]
    fn check_grant(role: Newcomer, name: Option<&str>, expected: Result<&str, Refused>) {
        let proof = Proof { role, name: name.map(str::to_owned) };
        let (domain, address) = ("shoal.local".parse().unwrap(), IpAddr::from([10, 0, 0, 7]));
        let granted = grant(&domain, proof, "n-1".to_owned(), address, LIVES);
        let granted = granted.map(|it| {
            assert_eq!((it.addresses, it.hosts.len(), it.lives), (vec![address], 0, LIVES));
            it.id.to_string()
        });
        assert_eq!(granted, expected.map(str::to_owned));
    }

    #[test]
    fn a_grant_names_who_was_proven_at_the_observed_address() {
        check_grant(Newcomer::Sidecar, None, Ok("spiffe://shoal.local/sidecar/n-1"));
        check_grant(Newcomer::Scheduler, None, Ok("spiffe://shoal.local/scheduler/n-1"));
        check_grant(Newcomer::Sidecar, Some("node-1"), Ok("spiffe://shoal.local/sidecar/node-1"));
        for name in ["", "..", "a/b", "a b"] {
            check_grant(Newcomer::Sidecar, Some(name), Err(Refused::Name(name.to_owned())));
        }
    }

    #[track_caller]
    fn check_token(header: &str, claims: Value, expected: Result<(), Refused>) {
        let token = [header, &claims.to_string(), "signature"].map(|it| URL_SAFE_NO_PAD.encode(it)).join(".");
        assert_eq!(check_presented(&token, "shoal"), expected, "{header} {claims}");
        assert_eq!(check_presented(&format!("{token}\n"), "shoal"), expected);
    }

    #[test]
    fn only_a_token_for_this_audience_is_worth_asking_about() {
        const HEADER: &str = r#"{"alg":"RS256","kid":"1"}"#;
        check_token(HEADER, json!({"aud": "shoal"}), Ok(()));
        check_token(HEADER, json!({"aud": ["other", "shoal"], "iss": "x", "exp": 1}), Ok(()));
        let others = || Err(Refused::Audience("shoal".to_owned()));
        check_token(HEADER, json!({"aud": ["https://kubernetes.default.svc"]}), others());
        check_token(HEADER, json!({"aud": "shoal2"}), others());
        check_token(HEADER, json!({}), others());
        check_token(HEADER, json!({"aud": 7}), Err(Refused::NoToken));
        check_token(HEADER, json!("shoal"), Err(Refused::NoToken));
        check_token("no JSON", json!({"aud": "shoal"}), Err(Refused::NoToken));
        for none in ["", "..", "hunter2", "a.b", "a.b.c.d", "\u{e4}.\u{e4}.\u{e4}"] {
            assert_eq!(check_presented(none, "shoal"), Err(Refused::NoToken), "{none:?}");
        }
    }
}
