//! What nodes and gateways say to each other.

use std::time::Duration;

use bytes::Bytes;
use shoal_model::{Authorization, BlobKey, Node, TrustGroup};

use super::{
    Checked, MAX_ITEMS, Malformed, Wire, array, capped, digest, each, geometry, millis, name, need, source,
    trace_from_wire, trace_to_wire, wrong,
};
use crate::messages::{
    OpenReply, OpenRequest, Opened, OpenedBlob, Refusal, RegionRequest, RegionState, Regional, RenewReply,
    RenewRequest, Ticket,
};
use crate::wire;

impl Wire for OpenRequest {
    type Generated = wire::OpenRequest;

    fn into_wire(self) -> wire::OpenRequest {
        wire::OpenRequest {
            registry: self.source.registry,
            repository: self.source.repository,
            sha256: self.digests.iter().map(|it| Bytes::copy_from_slice(it.as_bytes())).collect(),
            authorization: self.authorization.map(|it| it.expose().to_owned()).unwrap_or_default(),
            node: Some(self.node.into_wire()),
            traceparents: self.traces.into_iter().map(trace_to_wire).collect(),
        }
    }

    fn from_wire(it: wire::OpenRequest) -> Checked<Self> {
        Ok(Self {
            source: source(it.registry, it.repository)?,
            digests: each("sha256", it.sha256, Self::MAX_DIGESTS, |it| digest(&it))?,
            authorization: (!it.authorization.is_empty()).then(|| Authorization::new(it.authorization)),
            node: need("node", it.node, Node::from_wire)?,
            traces: each("traceparents", it.traceparents, Self::MAX_DIGESTS, |it| Ok(trace_from_wire(&it)))?,
        })
    }
}

impl Wire for OpenReply {
    type Generated = wire::OpenReply;

    fn into_wire(self) -> wire::OpenReply {
        wire::OpenReply { blobs: self.0.into_iter().map(Opened::into_wire).collect() }
    }

    fn from_wire(it: wire::OpenReply) -> Checked<Self> {
        each("blobs", it.blobs, OpenRequest::MAX_DIGESTS, Opened::from_wire).map(Self)
    }
}

impl Wire for Opened {
    type Generated = wire::Opened;

    fn into_wire(self) -> wire::Opened {
        wire::Opened {
            index: u32::try_from(self.index).unwrap_or(u32::MAX),
            outcome: Some(match self.outcome {
                Ok(blob) => wire::opened::Outcome::Blob(blob.into_wire()),
                Err(refusal) => wire::opened::Outcome::Refusal(refusal.into_wire()),
            }),
        }
    }

    fn from_wire(it: wire::Opened) -> Checked<Self> {
        let outcome = match it.outcome {
            Some(wire::opened::Outcome::Blob(blob)) => Ok(OpenedBlob::from_wire(blob)?),
            Some(wire::opened::Outcome::Refusal(refusal)) => Err(Refusal::from_wire(refusal)?),
            None => return Err(Malformed::Missing("outcome")),
        };
        Ok(Self { index: it.index as usize, outcome })
    }
}

impl Wire for OpenedBlob {
    type Generated = wire::OpenedBlob;

    fn into_wire(self) -> wire::OpenedBlob {
        wire::OpenedBlob {
            blob: Some(self.key.into_wire()),
            size: self.geometry.size(),
            piece_length: self.geometry.piece_length(),
            ticket: self.ticket.0,
            content: self.content,
            holders: self.holders.into_iter().map(Node::into_wire).collect(),
            gateway: Some(self.gateway.into_wire()),
            ticket_lives_ms: millis(self.ticket_lives),
        }
    }

    fn from_wire(it: wire::OpenedBlob) -> Checked<Self> {
        Ok(Self {
            key: need("blob", it.blob, BlobKey::from_wire)?,
            geometry: geometry(it.size, it.piece_length)?,
            ticket: Ticket(it.ticket),
            content: it.content,
            holders: each("holders", it.holders, MAX_ITEMS, Node::from_wire)?,
            gateway: need("gateway", it.gateway, Node::from_wire)?,
            ticket_lives: Duration::from_millis(it.ticket_lives_ms),
        })
    }
}

impl Wire for Refusal {
    type Generated = wire::Refusal;

    fn into_wire(mut self) -> wire::Refusal {
        self.body.truncate(Self::MAX_BODY);
        wire::Refusal {
            status: self.status.into(),
            challenges: self.challenges,
            content_type: self.content_type,
            body: self.body,
            retry_after_seconds: self
                .retry_after
                .map_or(0, |it| u32::try_from(it.as_secs().max(1)).unwrap_or(u32::MAX)),
        }
    }

    fn from_wire(mut it: wire::Refusal) -> Checked<Self> {
        let status = match it.status {
            status @ 400..=599 => status as u16,
            other => return Err(wrong("status", other, "400 to 599")),
        };
        it.body.truncate(Self::MAX_BODY);
        let retry_after =
            (it.retry_after_seconds > 0).then(|| Duration::from_secs(it.retry_after_seconds.into()));
        Ok(Self {
            status,
            challenges: capped("challenges", it.challenges, 16)?,
            content_type: it.content_type,
            body: it.body,
            retry_after,
        })
    }
}

impl Wire for RenewRequest {
    type Generated = wire::RenewRequest;

    fn into_wire(self) -> wire::RenewRequest {
        wire::RenewRequest { blob: Some(self.key.into_wire()), ticket: self.ticket.0 }
    }

    fn from_wire(it: wire::RenewRequest) -> Checked<Self> {
        Ok(Self { key: need("blob", it.blob, BlobKey::from_wire)?, ticket: Ticket(it.ticket) })
    }
}

impl Wire for RenewReply {
    type Generated = wire::RenewReply;

    fn into_wire(self) -> wire::RenewReply {
        wire::RenewReply { ticket: self.ticket.0, ticket_lives_ms: millis(self.ticket_lives) }
    }

    fn from_wire(it: wire::RenewReply) -> Checked<Self> {
        Ok(Self { ticket: Ticket(it.ticket), ticket_lives: Duration::from_millis(it.ticket_lives_ms) })
    }
}

impl Wire for RegionRequest {
    type Generated = wire::RegionRequest;

    fn into_wire(self) -> wire::RegionRequest {
        wire::RegionRequest { regional: self.regional.map(Regional::into_wire) }
    }

    fn from_wire(it: wire::RegionRequest) -> Checked<Self> {
        Ok(Self { regional: it.regional.map(Regional::from_wire).transpose()? })
    }
}

impl Wire for RegionState {
    type Generated = wire::RegionState;

    fn into_wire(self) -> wire::RegionState {
        let groups =
            self.trust_groups.iter().map(|(registry, group)| (registry.clone(), group.as_str().to_owned()));
        wire::RegionState {
            schedulers: self.schedulers,
            verifying_keys: keys_to_wire(&self.verifying_keys),
            trust_groups: groups.collect(),
            gateway: self.gateway.map(Node::into_wire),
            own_keys: keys_to_wire(&self.own_keys),
            borrows: self.borrows,
        }
    }

    fn from_wire(it: wire::RegionState) -> Checked<Self> {
        let groups =
            each("trust_groups", it.trust_groups.into_iter().collect(), MAX_ITEMS, |(registry, group)| {
                Ok((registry, TrustGroup::new(&name("trust_group", group)?)))
            })?;
        Ok(Self {
            schedulers: capped("schedulers", it.schedulers, MAX_ITEMS)?,
            verifying_keys: keys_from_wire("verifying_keys", it.verifying_keys)?,
            trust_groups: groups.into_iter().collect(),
            gateway: it.gateway.map(Node::from_wire).transpose()?,
            own_keys: keys_from_wire("own_keys", it.own_keys)?,
            borrows: it.borrows,
        })
    }
}

fn keys_to_wire(keys: &[[u8; 32]]) -> Vec<Bytes> {
    keys.iter().map(|it| Bytes::copy_from_slice(it)).collect()
}

fn keys_from_wire(field: &'static str, keys: Vec<Bytes>) -> Checked<Vec<[u8; 32]>> {
    each(field, keys, 64, |it| array(field, &it))
}
