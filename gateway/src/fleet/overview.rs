//! The whole region at a glance: how many nodes stand where, and which parts do not answer.

use std::collections::BTreeMap;

use serde::Serialize;
use shoal_model::{Node, Role};
use shoal_proto::Joined;
use utoipa::ToSchema;

use super::view::{HubView, RegionView};
use crate::census::Silent;

/// The region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Fleet)]
pub(super) struct FleetView {
    pub(super) nodes: Nodes,
    /// Where they stand, by name.
    pub(super) zones: Vec<ZoneView>,
    /// The region's gateways that this one knows of.
    pub(super) gateways: Vec<GatewayView>,
    pub(super) schedulers: Vec<SchedulerView>,
    pub(super) hub: Option<HubView>,
    pub(super) regions: Vec<RegionView>,
    /// Blobs that some node wants; no more than 1000 are counted.
    pub(super) fetching: usize,
}

/// How many nodes have joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FleetNodes)]
pub(super) struct Nodes {
    sidecars: u32,
    gateways: u32,
}

/// Nodes by rack; both names are empty where nodes do not say where they stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FleetZone)]
pub(super) struct ZoneView {
    zone: String,
    racks: Vec<RackView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FleetRack)]
struct RackView {
    rack: String,
    #[serde(flatten)]
    nodes: Nodes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FleetGateway)]
pub(super) struct GatewayView {
    pub(super) id: String,
    pub(super) address: String,
    /// Whether it is the one that tells this.
    pub(super) is_this: bool,
    pub(super) answers: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FleetScheduler)]
pub(super) struct SchedulerView {
    pub(super) address: String,
    /// Why it does not answer, if it does not.
    pub(super) cause: Option<String>,
}

impl Nodes {
    fn add(&mut self, role: Role) {
        match role {
            Role::Sidecar => self.sidecars += 1,
            Role::Gateway => self.gateways += 1,
        }
    }
}

impl FleetView {
    /// Of these nodes; what else there is to see is to be filled in.
    pub(super) fn of(joined: &[Joined]) -> Self {
        let mut nodes = Nodes::default();
        let mut places: BTreeMap<&str, BTreeMap<&str, Nodes>> = BTreeMap::new();
        for Joined { node: Node { role, place, .. }, .. } in joined {
            nodes.add(*role);
            places.entry(&place.zone).or_default().entry(&place.rack).or_default().add(*role);
        }
        let rack = |(rack, nodes): (&str, Nodes)| RackView { rack: rack.to_owned(), nodes };
        let zone = |(zone, racks): (&str, BTreeMap<&str, Nodes>)| ZoneView {
            zone: zone.to_owned(),
            racks: racks.into_iter().map(rack).collect(),
        };
        Self {
            nodes,
            zones: places.into_iter().map(zone).collect(),
            gateways: Vec::new(),
            schedulers: Vec::new(),
            hub: None,
            regions: Vec::new(),
            fetching: 0,
        }
    }
}

/// Which of the schedulers answer.
pub(super) fn schedulers(all: &[String], silent: &[Silent]) -> Vec<SchedulerView> {
    let cause =
        |address: &String| silent.iter().find(|it| it.scheduler == *address).map(|it| it.cause.clone());
    all.iter().map(|it| SchedulerView { address: it.clone(), cause: cause(it) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_model::{NodeId, Place};

    #[test]
    fn nodes_are_counted_where_they_stand() {
        let node = |name: &str, role, zone: &str, rack: &str| Joined {
            node: Node {
                id: NodeId::new(name),
                address: "a:1".into(),
                role,
                place: Place { zone: zone.into(), rack: rack.into() },
            },
            n_blobs: None,
        };
        let joined = [
            node("a", Role::Sidecar, "z2", "r1"),
            node("b", Role::Sidecar, "z1", ""),
            node("c", Role::Gateway, "z2", "r1"),
            node("d", Role::Sidecar, "z2", "r0"),
        ];
        let fleet = serde_json::to_value(FleetView::of(&joined)).unwrap();
        assert_eq!(fleet["nodes"], json!({ "sidecars": 3, "gateways": 1 }));
        let expected = json!([
            { "zone": "z1", "racks": [{ "rack": "", "sidecars": 1, "gateways": 0 }] },
            { "zone": "z2", "racks": [
                { "rack": "r0", "sidecars": 1, "gateways": 0 },
                { "rack": "r1", "sidecars": 1, "gateways": 1 },
            ] },
        ]);
        assert_eq!(fleet["zones"], expected);
    }

    #[test]
    fn a_scheduler_that_does_not_answer_is_shown_with_the_cause() {
        let silent = [Silent { scheduler: "b".to_owned(), cause: "refused".to_owned() }];
        let shown = schedulers(&["a".to_owned(), "b".to_owned()], &silent);
        let causes: Vec<_> = shown.iter().map(|it| it.cause.as_deref()).collect();
        assert_eq!(causes, [None, Some("refused")]);
    }
}
