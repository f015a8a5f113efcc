//! How a process gets its certificate.

use bytes::Bytes;

/// Asks a gateway for a certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct IssueRequest {
    /// PKCS #10 in DER. Only its key counts.
    pub signing_request: Bytes,
    /// What the asker proves itself with.
    pub credential: JoinCredential,
    /// What the machine calls itself; for logs, proves nothing.
    pub host: String,
}

/// What the asker for a certificate proves itself with. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub enum JoinCredential {
    /// The secret that is shared by all nodes of one role.
    JoinToken(String),
    /// A Kubernetes service account's token, bound to a pod.
    ServiceAccountToken(String),
}

impl std::fmt::Debug for JoinCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::JoinToken(_) => "JoinToken(…)",
            Self::ServiceAccountToken(_) => "ServiceAccountToken(…)",
        })
    }
}

/// A certificate, in DER as all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueReply {
    /// The certificate and what lies between it and a root.
    pub chain: Vec<Bytes>,
    /// The region's roots.
    pub roots: Vec<Bytes>,
}
