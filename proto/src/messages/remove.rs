//! How a gateway has nodes remove blobs.

use shoal_model::BlobKey;

/// Has a node remove blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveRequest(pub Vec<BlobKey>);

impl RemoveRequest {
    /// The most blobs in one request.
    pub const MAX: usize = 1000;
}

/// What a node has done about each of the blobs that it was to remove, in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveReply(pub Vec<Removal>);

/// What was done about a blob that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Something of it was there, and is gone.
    Removed,
    /// Nothing of it was there.
    Nothing,
    /// It is still there, and why.
    Failed(String),
}

impl Removal {
    /// The longest cause of a failure, in bytes.
    pub const MAX_CAUSE: usize = 1024;
}
