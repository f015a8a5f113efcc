//! How a gateway has nodes remove blobs.

use shoal_model::BlobKey;

use super::{Checked, Malformed, Wire, each, wrong};
use crate::messages::{Removal, RemoveReply, RemoveRequest};
use crate::wire;

impl Wire for RemoveRequest {
    type Generated = wire::RemoveRequest;

    fn into_wire(self) -> wire::RemoveRequest {
        wire::RemoveRequest { blobs: self.0.into_iter().map(BlobKey::into_wire).collect() }
    }

    fn from_wire(it: wire::RemoveRequest) -> Checked<Self> {
        each("blobs", it.blobs, Self::MAX, BlobKey::from_wire).map(Self)
    }
}

impl Wire for RemoveReply {
    type Generated = wire::RemoveReply;

    fn into_wire(self) -> wire::RemoveReply {
        wire::RemoveReply { blobs: self.0.into_iter().map(removal_to_wire).collect() }
    }

    fn from_wire(it: wire::RemoveReply) -> Checked<Self> {
        each("blobs", it.blobs, RemoveRequest::MAX, removal_from_wire).map(Self)
    }
}

fn removal_to_wire(it: Removal) -> wire::Removal {
    use wire::removal::Outcome;
    let outcome = match it {
        Removal::Removed => Outcome::Removed(true),
        Removal::Nothing => Outcome::Removed(false),
        Removal::Failed(why) => Outcome::Failed(why),
    };
    wire::Removal { outcome: Some(outcome) }
}

fn removal_from_wire(it: wire::Removal) -> Checked<Removal> {
    use wire::removal::Outcome;
    match it.outcome.ok_or(Malformed::Missing("outcome"))? {
        Outcome::Removed(true) => Ok(Removal::Removed),
        Outcome::Removed(false) => Ok(Removal::Nothing),
        Outcome::Failed(why) if why.len() > Removal::MAX_CAUSE => {
            Err(wrong("failed", format!("{} bytes", why.len()), "up to 1024"))
        }
        Outcome::Failed(why) => Ok(Removal::Failed(why)),
    }
}
