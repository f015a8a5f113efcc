//! Nodes and where they stand.

use std::fmt;
use std::sync::Arc;

/// One sidecar or gateway, named uniquely within its region.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Names a node.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as announced.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Serves the runtime of one machine.
    Sidecar,
    /// Seeds blobs from the registry.
    Gateway,
}

/// Locality labels; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Usually `topology.kubernetes.io/zone`.
    pub zone: Arc<str>,
    /// The rack within the zone.
    pub rack: Arc<str>,
}

/// A node as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// `host:port` of its peer port.
    pub address: Arc<str>,
    /// What it is for.
    pub role: Role,
    /// Where it stands.
    pub place: Place,
}
