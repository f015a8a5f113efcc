//! How a gateway asks schedulers who is there, and what they have.

use std::time::Duration;

use shoal_model::{BlobKey, Node, NodeId, TrustGroup};
use shoal_swarm::table::{CloseUp, Member, Sought, Stage, Standing};

use super::{Checked, Wire, digest, each, geometry, millis, name, need, wrong};
use crate::messages::{
    BlobsReply, BlobsRequest, Joined, NodesReply, NodesRequest, SwarmReply, SwarmRequest, TotalReply,
    TotalRequest,
};
use crate::wire;

impl Wire for NodesRequest {
    type Generated = wire::NodesRequest;

    fn into_wire(self) -> wire::NodesRequest {
        wire::NodesRequest {
            after: self.after.map(|it| it.as_str().to_owned()).unwrap_or_default(),
            at_most: self.at_most,
            zone: self.zone.map(|it| it.to_string()).unwrap_or_default(),
            counted: self.counted,
            having: self.having.map(BlobKey::into_wire),
        }
    }

    fn from_wire(it: wire::NodesRequest) -> Checked<Self> {
        Ok(Self {
            after: stated("after", it.after)?.map(|it| NodeId::new(&it)),
            at_most: it.at_most,
            zone: stated("zone", it.zone)?.map(Into::into),
            having: it.having.map(BlobKey::from_wire).transpose()?,
            counted: it.counted,
        })
    }
}

impl Wire for NodesReply {
    type Generated = wire::NodesReply;

    fn into_wire(self) -> wire::NodesReply {
        let counts: Option<_> = self.0.iter().map(|it| it.n_blobs).collect();
        wire::NodesReply {
            nodes: self.0.into_iter().map(|it| it.node.into_wire()).collect(),
            blobs: counts.unwrap_or_default(),
        }
    }

    fn from_wire(it: wire::NodesReply) -> Checked<Self> {
        let (n_nodes, n_counts) = (it.nodes.len(), it.blobs.len());
        if n_counts != 0 && n_counts != n_nodes {
            return Err(wrong("blobs", format!("{n_counts} counts"), "one for each node, or none"));
        }
        let mut counts = it.blobs.into_iter();
        let nodes = each("nodes", it.nodes, Self::MAX, Node::from_wire)?.into_iter();
        Ok(Self(nodes.map(|node| Joined { node, n_blobs: counts.next() }).collect()))
    }
}

impl Wire for BlobsRequest {
    type Generated = wire::BlobsRequest;

    fn into_wire(self) -> wire::BlobsRequest {
        let Sought { after, group, digest, stage, among } = self.sought;
        wire::BlobsRequest {
            after: after.map(BlobKey::into_wire),
            // There are no more than fit.
            at_most: u32::try_from(self.at_most).unwrap_or(u32::MAX),
            trust_group: group.map(|it| it.as_str().to_owned()).unwrap_or_default(),
            sha256: digest.map(|it| it.as_bytes().to_vec().into()).unwrap_or_default(),
            stage: stage.map_or(wire::Stage::Unspecified, stage_to_wire).into(),
            among: among.into_iter().map(BlobKey::into_wire).collect(),
        }
    }

    fn from_wire(it: wire::BlobsRequest) -> Checked<Self> {
        let at_most = usize::try_from(it.at_most).ok().filter(|it| (1..=Self::MAX).contains(it));
        let stage =
            wire::Stage::try_from(it.stage).map_err(|_| wrong("stage", it.stage, "one that is known"))?;
        let sought = Sought {
            after: it.after.map(BlobKey::from_wire).transpose()?,
            group: stated("trust_group", it.trust_group)?.map(|it| TrustGroup::new(&it)),
            digest: (!it.sha256.is_empty()).then(|| digest(&it.sha256)).transpose()?,
            stage: stage_from_wire(stage),
            among: each("among", it.among, Self::MAX, BlobKey::from_wire)?.into_iter().collect(),
        };
        Ok(Self { sought, at_most: at_most.ok_or_else(|| wrong("at_most", it.at_most, "from 1 to 1000"))? })
    }
}

impl Wire for BlobsReply {
    type Generated = wire::BlobsReply;

    fn into_wire(self) -> wire::BlobsReply {
        wire::BlobsReply { blobs: self.0.into_iter().map(standing_to_wire).collect() }
    }

    fn from_wire(it: wire::BlobsReply) -> Checked<Self> {
        each("blobs", it.blobs, Self::MAX, standing_from_wire).map(Self)
    }
}

impl Wire for SwarmRequest {
    type Generated = wire::SwarmRequest;

    fn into_wire(self) -> wire::SwarmRequest {
        let at_most = u32::try_from(self.at_most).unwrap_or(u32::MAX);
        wire::SwarmRequest { blob: Some(self.key.into_wire()), at_most }
    }

    fn from_wire(it: wire::SwarmRequest) -> Checked<Self> {
        let at_most = usize::try_from(it.at_most).ok().filter(|it| (1..=Self::MAX).contains(it));
        Ok(Self {
            key: need("blob", it.blob, BlobKey::from_wire)?,
            at_most: at_most.ok_or_else(|| wrong("at_most", it.at_most, "from 1 to 200"))?,
        })
    }
}

impl Wire for SwarmReply {
    type Generated = wire::SwarmReply;

    fn into_wire(self) -> wire::SwarmReply {
        let Some(CloseUp { standing, seeder, members, n_more }) = self.0 else {
            return wire::SwarmReply::default();
        };
        wire::SwarmReply {
            standing: Some(standing_to_wire(standing)),
            seeder: seeder.map(|it| it.as_str().to_owned()).unwrap_or_default(),
            members: members.into_iter().map(member_to_wire).collect(),
            more: n_more,
        }
    }

    fn from_wire(it: wire::SwarmReply) -> Checked<Self> {
        let Some(standing) = it.standing.map(standing_from_wire).transpose()? else {
            return Ok(Self(None));
        };
        let n_pieces = standing.geometry.n_pieces();
        let n_members = it.members.len();
        let member = |it| member_from_wire(it, n_pieces, n_members);
        Ok(Self(Some(CloseUp {
            standing,
            seeder: stated("seeder", it.seeder)?.map(|it| NodeId::new(&it)),
            members: each("members", it.members, SwarmRequest::MAX, member)?,
            n_more: it.more,
        })))
    }
}

impl Wire for TotalRequest {
    type Generated = wire::TotalRequest;

    fn into_wire(self) -> wire::TotalRequest {
        wire::TotalRequest {}
    }

    fn from_wire(_: wire::TotalRequest) -> Checked<Self> {
        Ok(Self)
    }
}

impl Wire for TotalReply {
    type Generated = wire::TotalReply;

    fn into_wire(self) -> wire::TotalReply {
        wire::TotalReply { bytes: self.bytes, counted_for_ms: millis(self.counted_for) }
    }

    fn from_wire(it: wire::TotalReply) -> Checked<Self> {
        Ok(Self { bytes: it.bytes, counted_for: Duration::from_millis(it.counted_for_ms) })
    }
}

fn member_to_wire(it: Member<Node>) -> wire::Member {
    wire::Member {
        node: Some(it.node.into_wire()),
        wants: it.wants,
        pieces: it.n_held,
        fill: it.fill.into(),
        neighbours: it.neighbours,
    }
}

fn member_from_wire(it: wire::Member, n_pieces: u32, n_members: usize) -> Checked<Member<Node>> {
    if it.pieces > n_pieces {
        return Err(wrong("pieces", it.pieces, "no more than the blob has"));
    }
    if it.fill.len() != CloseUp::n_cells(n_pieces) as usize {
        return Err(wrong("fill", format!("{} bytes", it.fill.len()), "one for each part"));
    }
    let neighbour = |it: u32| {
        let is_shown = usize::try_from(it).is_ok_and(|it| it < n_members);
        if is_shown { Ok(it) } else { Err(wrong("neighbours", it, "a place in the list")) }
    };
    Ok(Member {
        node: need("node", it.node, Node::from_wire)?,
        wants: it.wants,
        n_held: it.pieces,
        fill: it.fill.into(),
        neighbours: each("neighbours", it.neighbours, SwarmRequest::MAX, neighbour)?,
    })
}

fn standing_to_wire(it: Standing) -> wire::Standing {
    wire::Standing {
        blob: Some(it.key.into_wire()),
        size: it.geometry.size(),
        piece_length: it.geometry.piece_length(),
        whole: it.n_whole,
        part: it.n_part,
        wanting: it.n_wanting,
    }
}

fn standing_from_wire(it: wire::Standing) -> Checked<Standing> {
    Ok(Standing {
        key: need("blob", it.blob, BlobKey::from_wire)?,
        geometry: geometry(it.size, it.piece_length)?,
        n_whole: it.whole,
        n_part: it.part,
        n_wanting: it.wanting,
    })
}

const fn stage_to_wire(it: Stage) -> wire::Stage {
    match it {
        Stage::Fetching => wire::Stage::Fetching,
        Stage::Complete => wire::Stage::Complete,
        Stage::Partial => wire::Stage::Partial,
    }
}

const fn stage_from_wire(it: wire::Stage) -> Option<Stage> {
    match it {
        wire::Stage::Unspecified => None,
        wire::Stage::Fetching => Some(Stage::Fetching),
        wire::Stage::Complete => Some(Stage::Complete),
        wire::Stage::Partial => Some(Stage::Partial),
    }
}

/// A name that may be left out.
fn stated(field: &'static str, text: String) -> Checked<Option<String>> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}
