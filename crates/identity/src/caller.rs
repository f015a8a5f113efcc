//! Who asks, as far as it is proven.
//!
//! A message names its sender. Under mutual TLS the certificate says who that really is, and the address it
//! wants to be known by must be one that its certificate was issued for, or else the one that it calls from:
//! a node that could name another's address would have the region dial there. Without TLS, in tests, there
//! is nothing to compare with.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use http::Extensions;
use shoal_model::{Node, NodeId};

use crate::spiffe::Role;

/// Who somebody is, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What it is for.
    pub role: Role,
    /// Its name.
    pub node: NodeId,
    /// The addresses that it was issued for; none where it does not say.
    pub addresses: Vec<IpAddr>,
    /// When the certificate ends.
    pub until: SystemTime,
}

/// The other end of a connection; every request that comes over one carries it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Where it calls from.
    pub address: IpAddr,
    /// Who it is; none where it showed no certificate.
    pub identity: Option<Identity>,
    /// Whether identities are proven here at all.
    pub is_secured: bool,
}

/// A sender that is not who it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impostor {
    /// The request came by a listener that introduces nobody.
    #[error("the caller was not introduced")]
    Stranger,
    /// It has no certificate.
    #[error("from {0}: no certificate was shown")]
    Nobody(IpAddr),
    /// Its certificate is for another part.
    #[error("from {address}: a {seen} may not do this, a {expected} may")]
    OtherRole {
        /// Where it calls from.
        address: IpAddr,
        /// What its certificate says.
        seen: Role,
        /// What it would have to be.
        expected: Role,
    },
    /// It says that it is somebody else.
    #[error("from {address}: says it is {stated}, and its certificate says {proven}")]
    OtherNode {
        /// Where it calls from.
        address: IpAddr,
        /// Who it says it is.
        stated: NodeId,
        /// Who it is.
        proven: NodeId,
    },
    /// It wants others to be sent to an address that is not its own.
    #[error("from {address}: {node} says it is at {stated}, which is none of its certificate's addresses")]
    OtherAddress {
        /// Where it calls from.
        address: IpAddr,
        /// Who it is.
        node: NodeId,
        /// Where it says it is.
        stated: String,
    },
}

impl Caller {
    /// Whoever sent the request with these extensions.
    pub fn of(extensions: &Extensions) -> Result<&Self, Impostor> {
        extensions.get::<Arc<Self>>().map(AsRef::as_ref).ok_or(Impostor::Stranger)
    }

    /// Whether the caller belongs to the region.
    pub fn must_belong(&self) -> Result<(), Impostor> {
        match self.identity {
            None if self.is_secured => Err(Impostor::Nobody(self.address)),
            _ => Ok(()),
        }
    }

    /// Whether the caller is the node that it says it is, at an address of its own.
    pub fn must_be_node(&self, node: &Node) -> Result<(), Impostor> {
        let Some(identity) = self.identity_of(node.role.into())? else { return Ok(()) };
        if identity.node != node.id {
            return Err(Impostor::OtherNode {
                address: self.address,
                stated: node.id.clone(),
                proven: identity.node.clone(),
            });
        }
        let stated = node.address.parse::<SocketAddr>().map(|it| it.ip().to_canonical());
        let is_own = stated.is_ok_and(|it| match identity.addresses.as_slice() {
            [] => it == self.address,
            issued => issued.contains(&it),
        });
        if !is_own {
            return Err(Impostor::OtherAddress {
                address: self.address,
                node: node.id.clone(),
                stated: node.address.to_string(),
            });
        }
        Ok(())
    }

    /// Whether what was given to `holder` may be used by the caller.
    pub fn must_be_holder(&self, holder: &NodeId) -> Result<(), Impostor> {
        self.must_belong()?;
        match &self.identity {
            Some(identity) if identity.node != *holder => Err(Impostor::OtherNode {
                address: self.address,
                stated: holder.clone(),
                proven: identity.node.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The proven identity, if identities are proven here, where it has the role.
    fn identity_of(&self, expected: Role) -> Result<Option<&Identity>, Impostor> {
        self.must_belong()?;
        match &self.identity {
            Some(identity) if identity.role != expected => {
                Err(Impostor::OtherRole { address: self.address, seen: identity.role, expected })
            }
            identity => Ok(identity.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::Place;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn caller(role: Role, addresses: &[&str]) -> Caller {
        let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        let identity = Identity { role, node: NodeId::new("a"), addresses, until: SystemTime::UNIX_EPOCH };
        Caller { address: HERE, identity: Some(identity), is_secured: true }
    }

    fn node(id: &str, address: &str) -> Node {
        Node {
            id: NodeId::new(id),
            address: address.into(),
            role: shoal_model::Role::Sidecar,
            place: Place::default(),
        }
    }

    #[track_caller]
    fn check(caller: &Caller, node: &Node, refused: Option<&str>) {
        let seen = caller.must_be_node(node).err().map(|it| it.to_string());
        match (seen, refused) {
            (None, None) => {}
            (Some(text), Some(part)) if text.contains(part) => {}
            (seen, _) => panic!("{node:?}: {seen:?}, expected {refused:?}"),
        }
    }

    #[test]
    fn a_node_is_who_its_certificate_says_and_where_it_was_issued_for() {
        let it = caller(Role::Sidecar, &["10.0.0.7", "fd00::7"]);
        check(&it, &node("a", "10.0.0.7:65002"), None);
        check(&it, &node("a", "[fd00::7]:65002"), None);
        check(&it, &node("a", "[::ffff:10.0.0.7]:65002"), None);
        check(&it, &node("b", "10.0.0.7:65002"), Some("certificate says a"));
        check(&it, &node("a", "10.0.0.1:65002"), Some("none of its certificate's addresses"));
        check(&it, &node("a", "registry:65002"), Some("none of its certificate's addresses"));
        check(&caller(Role::Gateway, &["10.0.0.7"]), &node("a", "10.0.0.7:1"), Some("a gateway may not"));
    }

    #[test]
    fn a_certificate_without_addresses_speaks_for_where_it_calls_from() {
        let it = caller(Role::Sidecar, &[]);
        check(&it, &node("a", "10.0.0.1:65002"), None);
        check(&it, &node("a", "10.0.0.2:65002"), Some("none of"));
    }

    #[test]
    fn whoever_shows_no_certificate_is_nobody_where_one_is_asked() {
        let secured = Caller { address: HERE, identity: None, is_secured: true };
        check(&secured, &node("a", "10.0.0.1:1"), Some("no certificate"));
        assert!(secured.must_be_holder(&NodeId::new("a")).is_err());
        let open = Caller { is_secured: false, ..secured };
        check(&open, &node("a", "10.9.9.9:1"), None);
        assert!(open.must_be_holder(&NodeId::new("a")).is_ok());
    }

    #[test]
    fn what_one_node_was_given_serves_no_other() {
        let it = caller(Role::Sidecar, &[]);
        assert!(it.must_be_holder(&NodeId::new("a")).is_ok());
        assert!(it.must_be_holder(&NodeId::new("b")).is_err());
    }
}
