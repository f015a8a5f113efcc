//! What the audit log can tell.
//!
//! The types are the guard: names, digests, addresses and outcomes fit into an event, a credential does not.
//! Whoever shows one is known by a piece of its keyed fingerprint, enough to see that two requests came from
//! the same caller, and of no use outside this process.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};
use shoal_model::{Digest, NodeId};
use shoal_oci::{RegistryName, Repository};

use crate::authority::{Holder, Proof};
use crate::timestamp::Timestamp;

/// Something that somebody may later be asked about.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// Whether a caller may read a blob was decided.
    Authorization(Authorization),
    /// Something was read by way of the mirror endpoint.
    Read(Read),
    /// A node was turned away before anybody's right was looked at.
    Rejection(Rejection),
    /// A certificate was asked for.
    Certificate(Certificate),
    /// The management API was called.
    Management(Call),
}

/// How a request for something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Granted.
    Allowed,
    /// Not granted.
    Refused,
    /// Neither: whoever knows could not be asked.
    Undecided,
}

/// A caller asked for a blob.
#[derive(Clone, Debug, Serialize)]
pub struct Authorization {
    /// Through which node.
    #[serde(serialize_with = "shown")]
    pub node: NodeId,
    /// Where the blob comes from.
    #[serde(serialize_with = "shown")]
    pub registry: RegistryName,
    /// As which repository's content.
    #[serde(serialize_with = "shown")]
    pub repository: Repository,
    /// Which blob.
    #[serde(serialize_with = "shown")]
    pub digest: Digest,
    /// Whose right was looked at.
    pub caller: Caller,
    /// What was decided.
    pub outcome: Outcome,
    /// What decided it; none where nothing could.
    pub proof: Option<Proof>,
}

/// Something of a repository was asked for by way of the mirror endpoint, where the registry itself decides, or
/// in gateway mode the allow-list.
#[derive(Clone, Debug, Serialize)]
pub struct Read {
    /// Through which node; none where nothing is secured.
    #[serde(serialize_with = "shown_if_any")]
    pub node: Option<NodeId>,
    /// Where from.
    pub client: IpAddr,
    /// Which registry.
    #[serde(serialize_with = "shown")]
    pub registry: RegistryName,
    /// Which repository.
    #[serde(serialize_with = "shown")]
    pub repository: Repository,
    /// What of it, as it stands in the path: `manifests/v1`.
    pub resource: String,
    /// Whose right was looked at.
    pub caller: Caller,
    /// What was decided.
    pub outcome: Outcome,
    /// The status of the answer.
    pub status: u16,
}

/// A node's request was turned away as it came.
#[derive(Clone, Debug, Serialize)]
pub struct Rejection {
    /// Which node, as its certificate says; none where nothing is secured.
    #[serde(serialize_with = "shown_if_any")]
    pub node: Option<NodeId>,
    /// Where from.
    pub client: IpAddr,
    /// What it came with.
    pub request: Requested,
    /// The registry that it named, if it did.
    #[serde(serialize_with = "shown_if_any")]
    pub registry: Option<RegistryName>,
    /// Why it was turned away.
    pub reason: Reason,
}

/// What nodes come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Requested {
    /// `Open`.
    Open,
    /// The renewal of a ticket.
    Renewal,
    /// A request to the mirror endpoint.
    Mirror,
}

/// What is wrong with a request, whoever may read what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The node is not who it says.
    Impostor,
    /// The registry is not one that is configured.
    UnknownRegistry,
    /// It cannot be read, or is no read.
    Malformed,
    /// Its ticket is not good, or not its own.
    Ticket,
}

/// Whose right it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody in particular.
    Anonymous,
    /// The gateway itself, for all nodes.
    Gateway,
    /// Whoever shows the credential whose keyed fingerprint begins like this.
    Fingerprint([u8; 8]),
}

/// A process asked for a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// Where from.
    pub client: IpAddr,
    /// What it proved itself with.
    pub credential: Credential,
    /// The name that the certificate is for; none where the credential proved none.
    #[serde(serialize_with = "shown_if_any")]
    pub node: Option<NodeId>,
    /// What was decided.
    pub outcome: Outcome,
    /// When the certificate ends; none where there is none.
    pub expires: Option<Timestamp>,
}

/// The kinds of credentials that certificates are issued against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Credential {
    /// The region's join token.
    JoinToken,
    /// A Kubernetes service account's token.
    ServiceAccountToken,
}

/// A call of the management API.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Where from.
    pub client: IpAddr,
    /// The token that was shown, also where it did not suffice; none where none was known.
    pub token: Option<TokenShown>,
    /// The HTTP method.
    #[serde(serialize_with = "shown")]
    pub method: http::Method,
    /// The route as it is declared, without what the caller put into it.
    pub route: String,
    /// What was made or changed, by its id.
    pub subject: Option<String>,
    /// The status of the answer.
    pub status: u16,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenShown {
    /// Its id.
    pub id: String,
    /// The name that was given to it.
    pub name: String,
}

impl From<&Holder> for Caller {
    fn from(holder: &Holder) -> Self {
        match holder {
            Holder::Anonymous => Self::Anonymous,
            Holder::Gateway => Self::Gateway,
            Holder::Caller(fingerprint) => {
                let mut start = [0; 8];
                start.copy_from_slice(&fingerprint[..8]);
                Self::Fingerprint(start)
            }
        }
    }
}

impl Serialize for Caller {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Anonymous => serializer.serialize_str("anonymous"),
            Self::Gateway => serializer.serialize_str("gateway"),
            Self::Fingerprint(start) => serializer.serialize_str(&hex::encode(start)),
        }
    }
}

fn shown<S: Serializer>(it: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(it)
}

fn shown_if_any<S: Serializer>(it: &Option<impl fmt::Display>, serializer: S) -> Result<S::Ok, S::Error> {
    match it {
        Some(it) => serializer.collect_str(it),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(event: Event, expected: &str) {
        assert_eq!(serde_json::to_string(&event).unwrap(), expected);
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let digest = Digest::from_sha256([0xab; 32]);
        let authorization = Authorization {
            node: NodeId::new("node-1"),
            registry: "harbor.example".parse().unwrap(),
            repository: "prod/app".parse().unwrap(),
            digest,
            caller: (&Holder::Caller([0x5a; 32])).into(),
            outcome: Outcome::Refused,
            proof: Some(Proof::BlobHead),
        };
        check(
            Event::Authorization(authorization),
            &format!(
                r#"{{"event":"authorization","node":"node-1","registry":"harbor.example","repository":"prod/app","digest":"{digest}","caller":"5a5a5a5a5a5a5a5a","outcome":"refused","proof":"blobHead"}}"#
            ),
        );
        let read = Read {
            node: Some(NodeId::new("node-1")),
            client: [10, 0, 0, 7].into(),
            registry: "harbor.example".parse().unwrap(),
            repository: "prod/app".parse().unwrap(),
            resource: "manifests/v1".to_owned(),
            caller: (&Holder::Gateway).into(),
            outcome: Outcome::Allowed,
            status: 200,
        };
        check(
            Event::Read(read),
            r#"{"event":"read","node":"node-1","client":"10.0.0.7","registry":"harbor.example","repository":"prod/app","resource":"manifests/v1","caller":"gateway","outcome":"allowed","status":200}"#,
        );
        let rejection = Rejection {
            node: Some(NodeId::new("node-1")),
            client: [10, 0, 0, 7].into(),
            request: Requested::Open,
            registry: Some("evil.example".parse().unwrap()),
            reason: Reason::UnknownRegistry,
        };
        check(
            Event::Rejection(rejection),
            r#"{"event":"rejection","node":"node-1","client":"10.0.0.7","request":"open","registry":"evil.example","reason":"unknownRegistry"}"#,
        );
        let certificate = Certificate {
            client: [10, 0, 0, 7].into(),
            credential: Credential::JoinToken,
            node: None,
            outcome: Outcome::Refused,
            expires: None,
        };
        check(
            Event::Certificate(certificate),
            r#"{"event":"certificate","client":"10.0.0.7","credential":"joinToken","node":null,"outcome":"refused","expires":null}"#,
        );
        let call = Call {
            client: [127, 0, 0, 1].into(),
            token: Some(TokenShown { id: "1a2b3c4d".into(), name: "harbor".into() }),
            method: http::Method::DELETE,
            route: "/api/v1/tokens/{id}".into(),
            subject: Some("99887766".into()),
            status: 204,
        };
        check(
            Event::Management(call),
            r#"{"event":"management","client":"127.0.0.1","token":{"id":"1a2b3c4d","name":"harbor"},"method":"DELETE","route":"/api/v1/tokens/{id}","subject":"99887766","status":204}"#,
        );
    }
}
