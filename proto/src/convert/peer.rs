//! What nodes say to each other, and what a gateway signs.

use bytes::Bytes;
use shoal_model::BlobKey;

use super::{Checked, MAX_ITEMS, Wire, array, each, geometry, need, runs_from_wire, runs_to_wire, wrong};
use crate::messages::{Attestation, BlobNews, SeedProgress, Statement, Ticket, WatchRequest};
use crate::wire;

impl Wire for WatchRequest {
    type Generated = wire::WatchRequest;

    fn into_wire(self) -> wire::WatchRequest {
        wire::WatchRequest { blob: Some(self.key.into_wire()), ticket: self.ticket.0 }
    }

    fn from_wire(it: wire::WatchRequest) -> Checked<Self> {
        Ok(Self { key: need("blob", it.blob, BlobKey::from_wire)?, ticket: Ticket(it.ticket) })
    }
}

impl Wire for BlobNews {
    type Generated = wire::BlobNews;

    fn into_wire(self) -> wire::BlobNews {
        wire::BlobNews {
            gained: runs_to_wire(self.gained),
            attestations: self.attestations.into_iter().map(Attestation::into_wire).collect(),
            seed: self.seed.map(|it| wire::SeedProgress {
                queue_position: it.queue_position,
                offset: it.offset,
                heartbeat: it.heartbeat,
            }),
            dropped: self.dropped,
            lost: runs_to_wire(self.lost),
        }
    }

    fn from_wire(it: wire::BlobNews) -> Checked<Self> {
        Ok(Self {
            dropped: it.dropped,
            lost: runs_from_wire(it.lost)?,
            attestations: each("attestations", it.attestations, MAX_ITEMS, Attestation::from_wire)?,
            gained: runs_from_wire(it.gained)?,
            seed: it.seed.map(|it| SeedProgress {
                queue_position: it.queue_position,
                offset: it.offset,
                heartbeat: it.heartbeat,
            }),
        })
    }
}

impl Wire for Attestation {
    type Generated = wire::Attestation;

    fn into_wire(self) -> wire::Attestation {
        wire::Attestation { statement: self.statement, signature: Bytes::copy_from_slice(&self.signature) }
    }

    fn from_wire(it: wire::Attestation) -> Checked<Self> {
        Ok(Self { statement: it.statement, signature: array("signature", &it.signature)? })
    }
}

impl Wire for Statement {
    type Generated = wire::Statement;

    fn into_wire(self) -> wire::Statement {
        wire::Statement {
            blob: Some(self.key.into_wire()),
            size: self.geometry.size(),
            piece_length: self.geometry.piece_length(),
            epoch: self.epoch,
            first: self.first,
            digests: self.digests.concat().into(),
            sealed: self.sealed,
        }
    }

    fn from_wire(it: wire::Statement) -> Checked<Self> {
        let geometry = geometry(it.size, it.piece_length)?;
        let (digests, rest) = it.digests.as_chunks::<32>();
        let end = u64::from(it.first).saturating_add(digests.len() as u64);
        if !rest.is_empty() || end > u64::from(geometry.n_pieces()) {
            return Err(wrong(
                "digests",
                format!("{} bytes from piece {}", it.digests.len(), it.first),
                "32 per piece",
            ));
        }
        if it.sealed && digests.len() as u64 != u64::from(geometry.n_pieces()) {
            return Err(wrong("digests", digests.len(), "every piece of a sealed blob"));
        }
        Ok(Self {
            key: need("blob", it.blob, BlobKey::from_wire)?,
            geometry,
            epoch: it.epoch,
            first: it.first,
            digests: digests.to_vec(),
            sealed: it.sealed,
        })
    }
}
