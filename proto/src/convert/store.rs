//! How a gateway has nodes fetch blobs.

use std::time::Duration;

use shoal_model::{BlobKey, Node};

use super::{Checked, Wire, each, geometry, millis, need, source, wrong};
use crate::messages::{StoreBlob, StoreProgress, StoreRequest, Stored, Ticket};
use crate::wire;

impl Wire for StoreRequest {
    type Generated = wire::StoreRequest;

    fn into_wire(self) -> wire::StoreRequest {
        wire::StoreRequest {
            registry: self.source.registry,
            repository: self.source.repository,
            blobs: self.blobs.into_iter().map(StoreBlob::into_wire).collect(),
            at_once: self.at_once,
        }
    }

    fn from_wire(it: wire::StoreRequest) -> Checked<Self> {
        Ok(Self {
            source: source(it.registry, it.repository)?,
            blobs: each("blobs", it.blobs, Self::MAX_BLOBS, StoreBlob::from_wire)?,
            at_once: it.at_once,
        })
    }
}

impl Wire for StoreBlob {
    type Generated = wire::StoreBlob;

    fn into_wire(self) -> wire::StoreBlob {
        wire::StoreBlob {
            blob: Some(self.key.into_wire()),
            size: self.geometry.size(),
            piece_length: self.geometry.piece_length(),
            ticket: self.ticket.0,
            ticket_lives_ms: millis(self.ticket_lives),
            gateway: Some(self.gateway.into_wire()),
        }
    }

    fn from_wire(it: wire::StoreBlob) -> Checked<Self> {
        Ok(Self {
            key: need("blob", it.blob, BlobKey::from_wire)?,
            geometry: geometry(it.size, it.piece_length)?,
            ticket: Ticket(it.ticket),
            ticket_lives: Duration::from_millis(it.ticket_lives_ms),
            gateway: need("gateway", it.gateway, Node::from_wire)?,
        })
    }
}

impl Wire for StoreProgress {
    type Generated = wire::StoreProgress;

    fn into_wire(self) -> wire::StoreProgress {
        wire::StoreProgress { blobs: self.0.into_iter().map(Stored::into_wire).collect() }
    }

    fn from_wire(it: wire::StoreProgress) -> Checked<Self> {
        each("blobs", it.blobs, StoreRequest::MAX_BLOBS, Stored::from_wire).map(Self)
    }
}

impl Wire for Stored {
    type Generated = wire::Stored;

    fn into_wire(self) -> wire::Stored {
        use wire::stored::End;
        wire::Stored {
            // There are no more than fit.
            index: u32::try_from(self.index).unwrap_or(u32::MAX),
            held: self.held,
            end: self.end.map(|it| match it {
                Ok(()) => End::Done(true),
                Err(why) => End::Failed(why),
            }),
        }
    }

    fn from_wire(it: wire::Stored) -> Checked<Self> {
        use wire::stored::End;
        let index = usize::try_from(it.index).ok().filter(|it| *it < StoreRequest::MAX_BLOBS);
        let index = index.ok_or_else(|| wrong("index", it.index, "below 512"))?;
        let end = match it.end {
            Some(End::Failed(why)) if why.len() > Self::MAX_CAUSE => {
                return Err(wrong("failed", format!("{} bytes", why.len()), "up to 1024"));
            }
            Some(End::Failed(why)) => Some(Err(why)),
            Some(End::Done(true)) => Some(Ok(())),
            Some(End::Done(false)) | None => None,
        };
        Ok(Self { index, held: it.held, end })
    }
}
