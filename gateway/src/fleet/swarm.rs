//! One blob closely: what each member holds of it, and who is whose neighbour.

use serde::Serialize;
use shoal_model::Node;
use shoal_swarm::table::{CloseUp, Member};
use utoipa::ToSchema;

use super::view::{self, TaskView};

/// A blob with some of its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Swarm)]
pub(super) struct SwarmView {
    task: TaskView,
    /// The gateway that seeds it at present, if one does.
    seeder: Option<String>,
    /// In how many parts of about the same length its pieces are shown.
    cells: u32,
    /// Those that want it first.
    members: Vec<MemberView>,
    /// Members beyond those.
    more: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SwarmMember)]
struct MemberView {
    id: String,
    address: String,
    role: &'static str,
    zone: String,
    rack: String,
    wants: bool,
    /// That it holds.
    pieces: u32,
    /// How much it holds of each part, in order: two hex digits each, 00 for nothing, ff for all of it.
    fill: String,
    /// Its neighbours, by their places among the members, from 0.
    neighbours: Vec<u32>,
}

impl SwarmView {
    pub(super) fn new(close_up: CloseUp<Node>, task: TaskView) -> Self {
        let CloseUp { standing, seeder, members, n_more } = close_up;
        Self {
            task,
            seeder: seeder.map(|it| it.to_string()),
            cells: CloseUp::n_cells(standing.geometry.n_pieces()),
            members: members.into_iter().map(Into::into).collect(),
            more: n_more,
        }
    }
}

impl From<Member<Node>> for MemberView {
    fn from(Member { node, wants, n_held, fill, neighbours }: Member<Node>) -> Self {
        Self {
            id: node.id.to_string(),
            address: node.address.to_string(),
            role: view::role(node.role),
            zone: node.place.zone.to_string(),
            rack: node.place.rack.to_string(),
            wants,
            pieces: n_held,
            fill: hex::encode(fill),
            neighbours,
        }
    }
}
