//! Other regions, whose gateways read registries by way of this one.
//!
//! Such a gateway shows a certificate of this region for its role, which opens the mirror endpoint and nothing else. What
//! it asks there is passed on as for a node, but for the content of blobs: that is read from this gateway's own seed, so
//! that the registry is read once for all regions. Whether it may be read is decided for each request just as for a node
//! that opens the blob, cached or not; a transfer that was admitted goes on for an hour. ([`serve`])
//!
//! Which regions are there is known by the streams that they keep ([`roll`]). By another stream they are told what this
//! gateway's preheat jobs want of them ([`desk`]).

mod assignments;
mod desk;
mod name;
mod roll;
mod serve;
mod stream;

use http::{Extensions, HeaderMap};
use shoal_identity::{Caller, Role};
use shoal_model::NodeId;

pub(crate) use desk::{Desk, Link, Order, Reply, Told};
pub use name::{RegionName, RegionNameError};
pub(crate) use roll::{Attended, Roll};
pub(crate) use serve::{Asked, Regions};

use crate::hub::REGION;

/// Who asks, where that is the gateway of another region.
pub(crate) fn identity(from: &Extensions) -> Option<NodeId> {
    let identity = Caller::of(from).ok()?.identity.as_ref()?;
    (identity.role == Role::Region).then(|| identity.node.clone())
}

/// The same of a request; without certificates, in tests, it is who says so.
pub(crate) fn asking(from: &Extensions, headers: &HeaderMap) -> Option<NodeId> {
    let stated = || {
        let is_secured = Caller::of(from).ok()?.is_secured;
        let region = headers.get(REGION)?.to_str().ok()?;
        (!is_secured).then(|| NodeId::new(region))
    };
    identity(from).or_else(stated)
}
