//! Which nodes a job has the image put on.
//!
//! Where fewer are asked for than there are, they are spread: over zones first, then over the racks of each, so that
//! every part of the region soon has somebody to get the image from. Within a rack chance decides, so that the same
//! nodes are not meant each time.
//!
//! Knows nothing of: how nodes are known, what is put there.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use shoal_model::{Node, Rng, Role};

use super::request::{Pick, Selector};

/// The nodes that are meant, of all that there are.
pub(super) fn choose(nodes: Vec<Node>, selector: &Selector, rng: &mut Rng) -> Vec<Node> {
    let in_zone = |it: &Node| selector.zone.as_ref().is_none_or(|zone| *it.place.zone == **zone);
    let mut nodes: Vec<_> = nodes.into_iter().filter(|it| it.role == Role::Sidecar && in_zone(it)).collect();
    nodes.sort_by(|one, other| one.id.cmp(&other.id));
    match &selector.pick {
        Pick::All => nodes,
        Pick::Ips(ips) => {
            nodes.retain(|it| ip(it).is_some_and(|it| ips.contains(&it)));
            nodes
        }
        Pick::Count(count) => spread(nodes, *count as usize, rng),
        Pick::Percentage(percent) => {
            let n_chosen = nodes.len().saturating_mul(*percent as usize) / 100;
            spread(nodes, n_chosen.max(1), rng)
        }
    }
}

/// The IP address at which a node stands.
pub(super) fn ip(node: &Node) -> Option<IpAddr> {
    node.address.parse::<SocketAddr>().ok().map(|it| it.ip().to_canonical())
}

/// So many of the nodes, a zone after the other and in it a rack after the other.
fn spread(mut nodes: Vec<Node>, n_chosen: usize, rng: &mut Rng) -> Vec<Node> {
    rng.shuffle(&mut nodes);
    let mut zones: BTreeMap<Arc<str>, BTreeMap<Arc<str>, VecDeque<Node>>> = BTreeMap::new();
    for node in nodes {
        let racks = zones.entry(node.place.zone.clone()).or_default();
        racks.entry(node.place.rack.clone()).or_default().push_back(node);
    }
    let mut zones: VecDeque<VecDeque<_>> =
        zones.into_values().map(|racks| racks.into_values().collect()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < n_chosen
        && let Some(mut racks) = zones.pop_front()
    {
        if let Some(mut rack) = racks.pop_front() {
            chosen.extend(rack.pop_front());
            if !rack.is_empty() {
                racks.push_back(rack);
            }
        }
        if !racks.is_empty() {
            zones.push_back(racks);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_model::{NodeId, Place, Rng};

    use super::*;

    /// So many nodes in each rack, named zone-rack-number.
    fn fleet(racks: &[(&str, &str, usize)]) -> Vec<Node> {
        let mut nodes = Vec::new();
        for (zone, rack, n_nodes) in racks {
            for n in 0..*n_nodes {
                nodes.push(Node {
                    id: NodeId::new(&format!("{zone}-{rack}-{n}")),
                    address: format!("10.0.{}.{n}:65002", nodes.len() / 200).as_str().into(),
                    role: Role::Sidecar,
                    place: Place { zone: (*zone).into(), rack: (*rack).into() },
                });
            }
        }
        nodes
    }

    fn chosen(nodes: &[Node], zone: Option<&str>, pick: Pick) -> Vec<Node> {
        let selector = Selector { zone: zone.map(str::to_owned), pick };
        choose(nodes.to_vec(), &selector, &mut Rng::new(7))
    }

    fn n_in(nodes: &[Node], zone: &str, rack: &str) -> usize {
        nodes.iter().filter(|it| &*it.place.zone == zone && &*it.place.rack == rack).count()
    }

    #[test]
    fn all_are_the_nodes_and_no_gateway() {
        let mut nodes = fleet(&[("a", "1", 3)]);
        nodes.push(Node { role: Role::Gateway, ..nodes[0].clone() });
        assert_eq!(chosen(&nodes, None, Pick::All).len(), 3);
        assert!(chosen(&nodes, Some("b"), Pick::All).is_empty());
    }

    #[test]
    fn a_few_are_spread_over_zones_and_racks() {
        let nodes = fleet(&[("a", "1", 100), ("a", "2", 100), ("b", "1", 100), ("c", "", 2)]);
        let few = chosen(&nodes, None, Pick::Count(8));
        let n = |zone, rack| n_in(&few, zone, rack);
        assert_eq!((n("a", "1"), n("a", "2"), n("b", "1"), n("c", "")), (2, 1, 3, 2));
        let in_a = chosen(&nodes, Some("a"), Pick::Count(10));
        assert_eq!((n_in(&in_a, "a", "1"), n_in(&in_a, "a", "2")), (5, 5));
    }

    #[test]
    fn a_percentage_is_rounded_down_and_is_at_least_one() {
        let nodes = fleet(&[("a", "1", 199)]);
        for (percent, expected) in [(1, 1), (50, 99), (100, 199)] {
            assert_eq!(chosen(&nodes, None, Pick::Percentage(percent)).len(), expected, "{percent}");
        }
        assert_eq!(chosen(&nodes[..3], None, Pick::Percentage(1)).len(), 1);
        assert!(chosen(&[], None, Pick::Percentage(50)).is_empty());
    }

    #[test]
    fn addresses_name_those_that_stand_there() {
        let nodes = fleet(&[("a", "1", 9)]);
        let ips = ["10.0.0.3", "10.0.0.7", "10.9.9.9"].map(|it| it.parse().unwrap()).to_vec();
        let names: Vec<_> = chosen(&nodes, None, Pick::Ips(ips)).iter().map(|it| it.id.to_string()).collect();
        assert_eq!(names, ["a-1-3", "a-1-7"]);
    }

    proptest! {
        #[test]
        fn as_many_as_are_asked_for_are_chosen_and_no_zone_has_two_more_than_one_with_nodes_left(
            a in 0_usize..30, b in 0_usize..30, c in 0_usize..30, count in 1_u32..100,
        ) {
            let nodes = fleet(&[("a", "1", a), ("b", "1", b), ("c", "1", c)]);
            let few = chosen(&nodes, None, Pick::Count(count));
            prop_assert_eq!(few.len(), nodes.len().min(count as usize));
            let taken = ["a", "b", "c"].map(|zone| n_in(&few, zone, "1"));
            let most = taken.iter().max().copied().unwrap_or_default();
            for (taken, n_there) in taken.into_iter().zip([a, b, c]) {
                prop_assert!(taken + 1 >= most || taken == n_there);
            }
        }
    }
}
