//! The simulator chooses nothing: what the network carried is what the swarm's own machines decide.

use std::collections::BTreeMap;

use shoal_model::{BlobKey, NodeId, Rng};
use shoal_simulator::{Asked, Entry, Journal, Simulation, World};
use shoal_swarm::fetch::{self, Action, Fetch};
use shoal_swarm::table::{self, Table, What};
use shoal_swarm::{Algorithm, Bitmap, Geometry};

/// What a fetch hears from its scheduler, as the machines told it.
type Said = BTreeMap<(NodeId, BlobKey), Vec<fetch::Event>>;

/// Each world with each algorithm.
fn in_both_ways<const N: usize>(names: [&str; N]) -> impl Iterator<Item = (&str, Algorithm)> {
    Algorithm::ALL.into_iter().flat_map(move |it| names.map(|name| (name, it)))
}

fn journal(name: &str, n_nodes: usize, algorithm: Algorithm) -> Journal {
    let mut world = World::named(name, n_nodes, 32 << 20, &mut Rng::new(7)).expect("a documented world");
    world.algorithm = algorithm;
    let run = Simulation::with_journal(world, 7).run(|_, _| true);
    run.into_journal().expect("one was asked for")
}

/// Every order of fresh tables that hear what the simulator's heard.
fn replayed_orders(journal: &Journal, algorithm: Algorithm) -> Said {
    let (mut tables, mut roles, mut said) = (BTreeMap::new(), BTreeMap::new(), Said::new());
    for entry in &journal.entries {
        match entry.clone() {
            Entry::TableBegins { region, rng } => {
                let policy = table::Policy { algorithm, ..table::Policy::default() };
                tables.insert(region, Table::new(policy, rng));
            }
            Entry::TableHears { region, now, event } => {
                if let table::Event::Joined { node, role, .. } = &event {
                    roles.insert(node.clone(), *role);
                }
                let mut orders = Vec::new();
                tables.get_mut(&region).expect("begun").on_event(now, event, &mut orders);
                for order in orders {
                    let event = match order.what {
                        What::Neighbours { near, far, algorithm, .. } => {
                            fetch::Event::Neighbours { near, far, algorithm }
                        }
                        What::Lease { from, pieces } => {
                            let role = roles[&from];
                            fetch::Event::Leased { from, role, pieces }
                        }
                        What::GoDirect => fetch::Event::MayGoDirect,
                        What::Seed { .. } => continue,
                    };
                    said.entry((order.to, order.key)).or_default().push(event);
                }
            }
            Entry::FetchBegins { .. } | Entry::FetchHears { .. } => {}
        }
    }
    said
}

/// Every ask of fresh fetches that hear what the simulator's heard.
fn replayed_asks(journal: &Journal) -> Vec<Asked> {
    let (mut fetches, mut asks) = (BTreeMap::new(), Vec::new());
    let n_pieces = |key: &BlobKey| geometries(journal)[key].n_pieces();
    for entry in &journal.entries {
        match entry.clone() {
            Entry::FetchBegins { now, node, key, rng } => {
                let (held, policy) = (Bitmap::new(n_pieces(&key)), fetch::Policy::default());
                let fetch = Fetch::new(now, node.clone(), key.clone(), held, policy, rng);
                fetches.insert((node, key), fetch);
            }
            Entry::FetchHears { now, node, key, event } => {
                let mut actions = Vec::new();
                fetches.get_mut(&(node.clone(), key.clone())).expect("begun").on_event(
                    now,
                    event,
                    &mut actions,
                );
                asks.extend(actions.into_iter().filter_map(|it| match it {
                    Action::Ask { from, piece, .. } => {
                        Some(Asked { by: node.clone(), key: key.clone(), from, piece })
                    }
                    _ => None,
                }));
            }
            Entry::TableBegins { .. } | Entry::TableHears { .. } => {}
        }
    }
    asks
}

/// How each blob is cut, as the nodes said when they wished for it.
fn geometries(journal: &Journal) -> BTreeMap<BlobKey, Geometry> {
    let wishes = journal.entries.iter().filter_map(|entry| match entry {
        Entry::TableHears { event: table::Event::Want { report, .. }, .. } => {
            Some((report.key.clone(), report.geometry))
        }
        _ => None,
    });
    wishes.collect()
}

/// What the simulator's fetches heard from their schedulers.
fn heard(journal: &Journal) -> Said {
    let mut heard = Said::new();
    for entry in &journal.entries {
        if let Entry::FetchHears { node, key, event, .. } = entry
            && let fetch::Event::Neighbours { .. } | fetch::Event::Leased { .. } | fetch::Event::MayGoDirect =
                event
        {
            heard.entry((node.clone(), key.clone())).or_default().push(event.clone());
        }
    }
    heard
}

#[test]
fn every_ask_on_the_network_is_an_action_of_the_nodes_own_machine() {
    for (name, algorithm) in in_both_ways(["flat", "churn", "layers", "uneven"]) {
        let journal = journal(name, 12, algorithm);
        let (mut expected, mut asked) = (replayed_asks(&journal), journal.asks);
        assert!(!asked.is_empty());
        expected.sort();
        asked.sort();
        assert_eq!(asked, expected, "{name}, {algorithm}");
    }
}

#[test]
fn every_neighbour_and_importer_is_named_by_the_schedulers_own_table() {
    for (name, algorithm) in in_both_ways(["racks", "churn", "regions"]) {
        let journal = journal(name, 45, algorithm);
        let said = replayed_orders(&journal, algorithm);
        for (fetch, heard) in heard(&journal) {
            // What is said to a fetch that has come to its end is not heard any more.
            assert_eq!(said[&fetch][..heard.len()], heard, "{name}, {algorithm}: {fetch:?}");
        }
    }
}
