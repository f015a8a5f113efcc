//! Who asks, as far as it is proven.
//!
//! A message names its sender. Under mutual TLS the certificate says who that really is. The address that it
//! wants to be known by is a statement like any other: a node that could name another's would have the region
//! dial there. Its certificate may prove it; whoever passes it on otherwise has to dial it first, and see that
//! this very node answers. Without TLS, in tests, there is nothing to compare with.

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
    #[error("from {address}: a {seen} may not do this")]
    OtherRole {
        /// Where it calls from.
        address: IpAddr,
        /// What its certificate says.
        seen: Role,
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

    /// Whether the caller is the node that it says it is. Where it stands is another matter, see
    /// [`stands_at`](Self::stands_at).
    pub fn must_be_node(&self, node: &Node) -> Result<(), Impostor> {
        self.must_be_one_of(&[node.role.into()])?;
        self.must_be_called(&node.id)
    }

    /// Whether the caller has one of these roles.
    pub fn must_be_one_of(&self, roles: &[Role]) -> Result<(), Impostor> {
        self.must_belong()?;
        match &self.identity {
            Some(identity) if !roles.contains(&identity.role) => {
                Err(Impostor::OtherRole { address: self.address, seen: identity.role })
            }
            _ => Ok(()),
        }
    }

    /// Whether the address that a node wants to be known by is proven: by its certificate, or where that names
    /// none, by where it calls from. Where nothing is secured, nothing is proven and everything believed.
    pub fn stands_at(&self, address: &str) -> bool {
        let Some(identity) = &self.identity else { return !self.is_secured };
        let stated = address.parse::<SocketAddr>().map(|it| it.ip().to_canonical());
        stated.is_ok_and(|it| match identity.addresses.as_slice() {
            [] => it == self.address,
            issued => issued.contains(&it),
        })
    }

    /// Whether what was given to the sidecar or gateway `holder` may be used by the caller.
    pub fn must_be_holder(&self, holder: &NodeId) -> Result<(), Impostor> {
        self.must_be_one_of(&[Role::Sidecar, Role::Gateway])?;
        self.must_be_called(holder)
    }

    fn must_be_called(&self, stated: &NodeId) -> Result<(), Impostor> {
        match &self.identity {
            Some(identity) if identity.node != *stated => Err(Impostor::OtherNode {
                address: self.address,
                stated: stated.clone(),
                proven: identity.node.clone(),
            }),
            _ => Ok(()),
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

    fn node(id: &str) -> Node {
        Node {
            id: NodeId::new(id),
            address: "10.0.0.1:1".into(),
            role: shoal_model::Role::Sidecar,
            place: Place::default(),
        }
    }

    #[test]
    fn a_node_is_who_its_certificate_says() {
        let it = caller(Role::Sidecar, &[]);
        assert_eq!(it.must_be_node(&node("a")), Ok(()));
        assert!(matches!(it.must_be_node(&node("b")), Err(Impostor::OtherNode { .. })));
        let gateway = caller(Role::Gateway, &[]);
        assert!(matches!(gateway.must_be_node(&node("a")), Err(Impostor::OtherRole { .. })));
    }

    #[track_caller]
    fn check_stands(addresses: &[&str], stated: &str, expected: bool) {
        assert_eq!(caller(Role::Sidecar, addresses).stands_at(stated), expected, "{addresses:?} {stated}");
    }

    #[test]
    fn an_address_is_proven_by_the_certificate_or_else_by_where_the_call_comes_from() {
        let issued = ["10.0.0.7", "fd00::7"];
        check_stands(&issued, "10.0.0.7:65002", true);
        check_stands(&issued, "[fd00::7]:65002", true);
        check_stands(&issued, "[::ffff:10.0.0.7]:65002", true);
        check_stands(&issued, "10.0.0.1:65002", false);
        check_stands(&issued, "registry:65002", false);
        check_stands(&[], "10.0.0.1:65002", true);
        check_stands(&[], "10.0.0.2:65002", false);
    }

    #[test]
    fn whoever_shows_no_certificate_is_nobody_where_one_is_asked() {
        let secured = Caller { address: HERE, identity: None, is_secured: true };
        assert_eq!(secured.must_be_node(&node("a")), Err(Impostor::Nobody(HERE)));
        assert!(secured.must_be_holder(&NodeId::new("a")).is_err());
        assert!(!secured.stands_at("10.0.0.1:1"));
        let open = Caller { is_secured: false, ..secured };
        assert_eq!(open.must_be_node(&node("a")), Ok(()));
        assert!(open.must_be_holder(&NodeId::new("a")).is_ok() && open.stands_at("10.9.9.9:1"));
    }

    #[test]
    fn what_one_node_was_given_serves_nobody_else() {
        for role in [Role::Sidecar, Role::Gateway] {
            let it = caller(role, &[]);
            assert!(it.must_be_holder(&NodeId::new("a")).is_ok());
            assert!(it.must_be_holder(&NodeId::new("b")).is_err());
        }
        assert!(caller(Role::Scheduler, &[]).must_be_holder(&NodeId::new("a")).is_err());
    }
}
