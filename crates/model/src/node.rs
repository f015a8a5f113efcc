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

impl AsRef<str> for NodeId {
    fn as_ref(&self) -> &str {
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

/// How near two places are, as far as their labels tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nearness {
    /// In the same rack.
    Rack,
    /// In the same zone, in racks that differ or are not known.
    Zone,
    /// In another zone, or where that is not known.
    Elsewhere,
}

impl Place {
    /// How near another place is.
    pub fn nearness(&self, other: &Self) -> Nearness {
        let same = |one: &str, other: &str| !one.is_empty() && one == other;
        if self.zone == other.zone && same(&self.rack, &other.rack) {
            Nearness::Rack
        } else if same(&self.zone, &other.zone) {
            Nearness::Zone
        } else {
            Nearness::Elsewhere
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_without_labels_are_near_to_nobody() {
        let place = |zone: &str, rack: &str| Place { zone: zone.into(), rack: rack.into() };
        for (one, other, nearness) in [
            (place("z", "r"), place("z", "r"), Nearness::Rack),
            (place("", "r"), place("", "r"), Nearness::Rack),
            (place("z", "r"), place("z", "s"), Nearness::Zone),
            (place("z", ""), place("z", ""), Nearness::Zone),
            (place("y", "r"), place("z", "r"), Nearness::Elsewhere),
            (place("", ""), place("", ""), Nearness::Elsewhere),
        ] {
            assert_eq!(one.nearness(&other), nearness, "{one:?} {other:?}");
        }
    }
}
