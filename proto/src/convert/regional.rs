//! What the hub and the gateways of other regions say to each other.

use std::time::Duration;

use bytes::Bytes;

use super::{Checked, Wire, capped, digest, each, millis, name, wrong};
use crate::messages::{
    BlobAtNode, OrderProgress, OrderedBlob, PreheatOrder, PreheatWish, Regional, RegionalNews,
    RegionalOrders, StoreRequest, Stored, Ticket,
};
use crate::wire;
use crate::wire::order_progress::End;

/// The longest text of a wish or of what is said about an order, in bytes.
const MAX_TEXT: usize = 4096;
/// The most addresses of a wish.
const MAX_IPS: usize = 100;

impl Wire for Regional {
    type Generated = wire::Regional;

    fn into_wire(self) -> wire::Regional {
        wire::Regional { region: self.region, address: self.address }
    }

    fn from_wire(it: wire::Regional) -> Checked<Self> {
        Ok(Self { region: name("region", it.region)?, address: name("address", it.address)? })
    }
}

impl Wire for RegionalNews {
    type Generated = wire::RegionalNews;

    fn into_wire(self) -> wire::RegionalNews {
        wire::RegionalNews {
            regional: self.regional.map(Regional::into_wire),
            orders: self.orders.into_iter().map(OrderProgress::into_wire).collect(),
        }
    }

    fn from_wire(it: wire::RegionalNews) -> Checked<Self> {
        Ok(Self {
            regional: it.regional.map(Regional::from_wire).transpose()?,
            orders: each("orders", it.orders, RegionalOrders::MAX, OrderProgress::from_wire)?,
        })
    }
}

impl Wire for RegionalOrders {
    type Generated = wire::RegionalOrders;

    fn into_wire(self) -> wire::RegionalOrders {
        wire::RegionalOrders { preheats: self.0.into_iter().map(PreheatOrder::into_wire).collect() }
    }

    fn from_wire(it: wire::RegionalOrders) -> Checked<Self> {
        each("preheats", it.preheats, Self::MAX, PreheatOrder::from_wire).map(Self)
    }
}

impl Wire for PreheatOrder {
    type Generated = wire::PreheatOrder;

    fn into_wire(self) -> wire::PreheatOrder {
        let wish = self.wish;
        wire::PreheatOrder {
            job: self.job,
            image: wish.image,
            blobs: self.blobs.into_iter().map(OrderedBlob::into_wire).collect(),
            scope: wish.scope,
            zone: wish.zone.unwrap_or_default(),
            ips: wish.ips,
            count: wish.count,
            percentage: wish.percentage,
            blobs_at_once: wish.blobs_at_once,
            nodes_at_once: wish.nodes_at_once,
            left_ms: millis(self.left),
            carry_out: self.carry_out,
            max_rows: self.max_rows,
        }
    }

    fn from_wire(it: wire::PreheatOrder) -> Checked<Self> {
        let wish = PreheatWish {
            image: text("image", it.image)?,
            scope: text("scope", it.scope)?,
            zone: Some(text("zone", it.zone)?).filter(|it| !it.is_empty()),
            ips: each("ips", it.ips, MAX_IPS, |it| text("ip", it))?,
            count: it.count,
            percentage: it.percentage,
            blobs_at_once: it.blobs_at_once,
            nodes_at_once: it.nodes_at_once,
        };
        Ok(Self {
            job: it.job,
            wish,
            blobs: each("blobs", it.blobs, StoreRequest::MAX_BLOBS, OrderedBlob::from_wire)?,
            left: Duration::from_millis(it.left_ms),
            carry_out: it.carry_out,
            max_rows: it.max_rows,
        })
    }
}

impl Wire for OrderedBlob {
    type Generated = wire::OrderedBlob;

    fn into_wire(self) -> wire::OrderedBlob {
        wire::OrderedBlob {
            sha256: Bytes::copy_from_slice(self.digest.as_bytes()),
            size: self.size,
            ticket: self.ticket.0,
            ticket_lives_ms: millis(self.ticket_lives),
        }
    }

    fn from_wire(it: wire::OrderedBlob) -> Checked<Self> {
        Ok(Self {
            digest: digest(&it.sha256)?,
            size: it.size,
            ticket: Ticket(text("ticket", it.ticket)?),
            ticket_lives: Duration::from_millis(it.ticket_lives_ms),
        })
    }
}

impl Wire for OrderProgress {
    type Generated = wire::OrderProgress;

    fn into_wire(self) -> wire::OrderProgress {
        let count = |[nodes_done, nodes_failed]: [u64; 2]| wire::BlobCount { nodes_done, nodes_failed };
        wire::OrderProgress {
            job: self.job,
            anew: self.anew,
            doing: self.doing,
            bytes: self.bytes,
            bytes_held: self.bytes_held,
            nodes: self.nodes,
            nodes_done: self.nodes_done,
            nodes_failed: self.nodes_failed,
            blobs: self.blobs.into_iter().map(count).collect(),
            rows: self.rows.into_iter().map(BlobAtNode::into_wire).collect(),
            rows_left_out: self.rows_left_out,
            errors: self.errors,
            end: self.succeeded.map(End::Succeeded),
        }
    }

    fn from_wire(it: wire::OrderProgress) -> Checked<Self> {
        let blobs = capped("blobs", it.blobs, StoreRequest::MAX_BLOBS)?;
        Ok(Self {
            job: it.job,
            anew: it.anew,
            doing: text("doing", it.doing)?,
            bytes: it.bytes,
            bytes_held: it.bytes_held,
            nodes: it.nodes,
            nodes_done: it.nodes_done,
            nodes_failed: it.nodes_failed,
            blobs: blobs.into_iter().map(|it| [it.nodes_done, it.nodes_failed]).collect(),
            rows: each("rows", it.rows, Self::MAX_ROWS, BlobAtNode::from_wire)?,
            rows_left_out: it.rows_left_out,
            errors: each("errors", it.errors, Self::MAX_ERRORS, |it| text("error", it))?,
            succeeded: it.end.map(|End::Succeeded(it)| it),
        })
    }
}

impl Wire for BlobAtNode {
    type Generated = wire::BlobAtNode;

    fn into_wire(self) -> wire::BlobAtNode {
        wire::BlobAtNode {
            // There are no more than fit.
            blob: u32::try_from(self.blob).unwrap_or(u32::MAX),
            node: self.node,
            ip: self.ip,
            failed: self.failed.unwrap_or_default(),
        }
    }

    fn from_wire(it: wire::BlobAtNode) -> Checked<Self> {
        let blob = usize::try_from(it.blob).ok().filter(|it| *it < StoreRequest::MAX_BLOBS);
        if it.failed.len() > Stored::MAX_CAUSE {
            return Err(wrong("failed", format!("{} bytes", it.failed.len()), "up to 1024"));
        }
        Ok(Self {
            blob: blob.ok_or_else(|| wrong("blob", it.blob, "below 512"))?,
            node: name("node", it.node)?,
            ip: text("ip", it.ip)?,
            failed: Some(it.failed).filter(|it| !it.is_empty()),
        })
    }
}

/// A text that may be empty.
fn text(field: &'static str, text: String) -> Checked<String> {
    if text.len() > MAX_TEXT {
        Err(wrong(field, format!("{} bytes", text.len()), "up to 4096"))
    } else {
        Ok(text)
    }
}
