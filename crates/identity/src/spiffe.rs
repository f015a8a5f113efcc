//! The name in a certificate: `spiffe://<trust domain>/<role>/<node>`.
//!
//! The form is that of the SPIFFE ID specification (lower-case trust domain, no query, no empty or dotted
//! segments); the two segments of the path are ours.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use shoal_model::NodeId;

/// The longest identity, in bytes (SPIFFE ID, section 2.4).
const MAX_LEN: usize = 2048;
/// The longest trust domain, in bytes (SPIFFE ID, section 2.4).
const MAX_DOMAIN: usize = 255;

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Seeds blobs and decides who may have them.
    Gateway,
    /// Tells nodes whom to ask.
    Scheduler,
    /// Serves the runtime of one machine.
    Sidecar,
    /// The gateway of another region, which reads its registries by way of this one.
    Region,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gateway, Self::Scheduler, Self::Sidecar, Self::Region];

    /// Its word in an identity.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Scheduler => "scheduler",
            Self::Sidecar => "sidecar",
            Self::Region => "region",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<shoal_model::Role> for Role {
    fn from(role: shoal_model::Role) -> Self {
        match role {
            shoal_model::Role::Gateway => Self::Gateway,
            shoal_model::Role::Sidecar => Self::Sidecar,
        }
    }
}

/// The name of a region's certificate authority.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let is_allowed = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b".-_".contains(&it);
        if (1..=MAX_DOMAIN).contains(&text.len()) && text.bytes().all(is_allowed) {
            return Ok(Self(text.into()));
        }
        Err(NotAnId)
    }
}

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// Whose authority vouches for it.
    pub domain: TrustDomain,
    /// What it is for.
    pub role: Role,
    /// Its name, unique within the region.
    pub node: NodeId,
}

/// The text is no identity of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not spiffe://<trust domain>/<gateway, scheduler, sidecar or region>/<node>")]
pub struct NotAnId;

impl SpiffeId {
    /// Puts a name together. A node's name that could not stand in a certificate is refused.
    pub fn new(domain: TrustDomain, role: Role, node: &str) -> Result<Self, NotAnId> {
        if !is_segment(node) {
            return Err(NotAnId);
        }
        Ok(Self { domain, role, node: NodeId::new(node) })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.domain, self.role, self.node)
    }
}

impl FromStr for SpiffeId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if text.len() > MAX_LEN {
            return Err(NotAnId);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(NotAnId)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some(role), Some(node), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAnId);
        };
        let role = Role::ALL.into_iter().find(|it| it.as_str() == role).ok_or(NotAnId)?;
        Self::new(domain.parse()?, role, node)
    }
}

/// Whether the text may be a segment of a SPIFFE ID's path (section 2.2).
fn is_segment(text: &str) -> bool {
    let is_allowed = |it: u8| it.is_ascii_alphanumeric() || b".-_".contains(&it);
    (1..=253).contains(&text.len()) && text.bytes().all(is_allowed) && text != "." && text != ".."
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, is_one: bool) {
        let parsed = text.parse::<SpiffeId>();
        assert_eq!(parsed.is_ok(), is_one, "{text}");
        if let Ok(id) = parsed {
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn an_identity_names_domain_role_and_node() {
        check("spiffe://shoal.local/sidecar/node-1", true);
        check("spiffe://a/gateway/10.0.0.1", true);
        check("spiffe://a/scheduler/ip-10-0-0-1.eu_west", true);
        for wrong in [
            "",
            "spiffe://",
            "https://a/sidecar/n",
            "spiffe://A/sidecar/n",
            "spiffe://a/admin/n",
            "spiffe://a/sidecar/",
            "spiffe://a/sidecar/..",
            "spiffe://a/sidecar/n/m",
            "spiffe://a/sidecar/n?x",
            "spiffe://a/sidecar/ä",
            "spiffe://a:1/sidecar/n",
            "spiffe:///sidecar/n",
        ] {
            check(wrong, false);
        }
        check(&format!("spiffe://a/sidecar/{}", "n".repeat(254)), false);
    }

    proptest! {
        #[test]
        fn whatever_parses_is_written_the_same_way(text in "spiffe://[a-z.]{0,4}/(sidecar|gateway|x)/[a-zA-Z0-9./_-]{0,6}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
