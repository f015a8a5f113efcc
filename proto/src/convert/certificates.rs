//! What a process and a gateway say to each other about certificates.

use super::{Checked, Wire, capped, need, wrong};
use crate::messages::{IssueReply, IssueRequest, JoinCredential};
use crate::wire;
use crate::wire::issue_request::Credential;

/// The longest signing request or certificate, in bytes; real ones take a few hundred.
const MAX_DER: usize = 16 << 10;
/// The longest credential, in bytes; a service account's token takes about 1500.
const MAX_CREDENTIAL: usize = 16 << 10;
/// The longest name of a machine that is taken note of, in bytes.
const MAX_HOST: usize = 255;
/// The most certificates in a chain, and the most roots.
const MAX_CERTIFICATES: usize = 16;

impl Wire for IssueRequest {
    type Generated = wire::IssueRequest;

    fn into_wire(self) -> wire::IssueRequest {
        wire::IssueRequest {
            signing_request: self.signing_request,
            credential: Some(match self.credential {
                JoinCredential::JoinToken(it) => Credential::JoinToken(it),
                JoinCredential::ServiceAccountToken(it) => Credential::ServiceAccountToken(it),
            }),
            host: self.host,
        }
    }

    fn from_wire(it: wire::IssueRequest) -> Checked<Self> {
        let credential = need("credential", it.credential, |it| {
            Ok(match it {
                Credential::JoinToken(it) => {
                    JoinCredential::JoinToken(short("join_token", it, MAX_CREDENTIAL)?)
                }
                Credential::ServiceAccountToken(it) => {
                    JoinCredential::ServiceAccountToken(short("service_account_token", it, MAX_CREDENTIAL)?)
                }
            })
        })?;
        let length = it.signing_request.len();
        if length > MAX_DER {
            return Err(wrong("signing_request", format!("{length} bytes"), "at most 16384"));
        }
        Ok(Self { signing_request: it.signing_request, credential, host: short("host", it.host, MAX_HOST)? })
    }
}

/// A text whose length only is told where it is too long.
fn short(field: &'static str, text: String, max: usize) -> Checked<String> {
    if text.len() > max { Err(wrong(field, format!("{} bytes", text.len()), "fewer")) } else { Ok(text) }
}

impl Wire for IssueReply {
    type Generated = wire::IssueReply;

    fn into_wire(self) -> wire::IssueReply {
        wire::IssueReply { chain: self.chain, roots: self.roots }
    }

    fn from_wire(it: wire::IssueReply) -> Checked<Self> {
        Ok(Self {
            chain: capped("chain", it.chain, MAX_CERTIFICATES)?,
            roots: capped("roots", it.roots, MAX_CERTIFICATES)?,
        })
    }
}
