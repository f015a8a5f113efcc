//! Runs of every world, and of what can break in one, small enough for each push.

use shoal_model::Rng;
use shoal_simulator::{Fault, Outcome, Simulation, World};
use shoal_swarm::{Algorithm, table};

const MIB: u64 = 1 << 20;
const MILLI: u64 = 1_000;

fn run(world: World) -> Outcome {
    Outcome::of(&Simulation::new(world, 1).run(|_, _| true))
}

/// A flat world of so many nodes and mebibytes in which this breaks.
fn broken(n_nodes: usize, mebibytes: u64, faults: &[(u64, Fault)]) -> Outcome {
    let world = World::flat("broken", n_nodes, mebibytes * MIB).expect("few pieces");
    run(World { faults: faults.to_vec(), ..world })
}

#[test]
fn every_world_is_served_whole_and_reads_the_registry_once() {
    let in_both_ways = Algorithm::ALL.into_iter().flat_map(|it| World::NAMES.map(|name| (name, it)));
    for (name, algorithm) in in_both_ways {
        let world = World::named(name, 60, 64 * MIB, &mut Rng::new(1)).unwrap();
        let outcome = run(World { algorithm, ..world });
        assert_eq!((outcome.failed_pulls, outcome.direct_pulls), (0, 0), "{name}, {algorithm}");
        assert!((outcome.registry_egress_ratio - 1.0).abs() < 0.001, "{name}: {outcome:?}");
        assert!((1.0..4.0).contains(&outcome.p50_ratio), "{name}: {outcome:?}");
        assert!(outcome.last_node_ratio < 8.0, "{name}: {outcome:?}");
    }
}

#[test]
fn each_piece_comes_into_a_rack_or_a_zone_about_once() {
    for name in ["racks", "zones"] {
        // Long enough that the time before there are racks to speak of does not count.
        let outcome = run(World::named(name, 120, 200 * MIB, &mut Rng::new(1)).unwrap());
        let copies = outcome.cross_rack_copies + outcome.cross_zone_copies;
        assert!((0.9..1.2).contains(&copies), "{name}: {outcome:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_gives_another() {
    let outcome = |seed| {
        let world = World::named("churn", 40, 32 * MIB, &mut Rng::new(3)).unwrap();
        let run = Simulation::new(world, seed).run(|_, _| true);
        (run.n_events(), Outcome::of(&run))
    };
    assert_eq!(outcome(1), outcome(1));
    assert_ne!(outcome(1), outcome(2));
}

#[test]
fn regions_read_the_registry_once_by_way_of_a_hub_and_each_by_itself_without() {
    // With 100, 200 and 150 nodes.
    let world = World::named("regions", 450, 32 * MIB, &mut Rng::new(1)).unwrap();
    let mut apart = world.clone();
    apart.sites.iter_mut().for_each(|it| it.upstream = None);
    for (world, copies) in [(world, 1.0), (apart, 3.0)] {
        let outcome = run(world);
        assert_eq!((outcome.n_nodes, outcome.failed_pulls, outcome.direct_pulls), (450, 0, 0));
        assert!((outcome.registry_egress_ratio - copies).abs() < 0.001, "{copies}: {outcome:?}");
    }
}

#[test]
fn an_unknown_world_is_none() {
    assert!(World::named("round", 10, MIB, &mut Rng::new(1)).is_none());
}

#[test]
fn the_gateway_sends_about_one_copy_and_the_nodes_the_rest() {
    for n_nodes in [1, 2, 8, 50] {
        let outcome = broken(n_nodes, 100, &[]);
        assert_eq!(outcome.failed_pulls, 0, "{n_nodes}");
        assert!(outcome.gateway_upload_ratio <= 1.5, "{n_nodes}: {outcome:?}");
        assert!(outcome.last_node_ratio < 2.0, "{n_nodes}: {outcome:?}");
    }
}

#[test]
fn dead_neighbours_cost_time_and_nothing_else() {
    let dead = [3, 7, 11, 15].map(|it| (400 * MILLI, Fault::Dies(it)));
    let outcome = broken(20, 100, &dead);
    assert_eq!((outcome.n_nodes, outcome.failed_pulls, outcome.direct_pulls), (16, 0, 0));
    assert!(outcome.gateway_upload_ratio <= 2.0, "{outcome:?}");
}

#[test]
fn without_a_scheduler_nodes_import_by_rank() {
    let outcome = broken(8, 60, &[(150 * MILLI, Fault::SchedulerDies(0))]);
    assert_eq!((outcome.failed_pulls, outcome.direct_pulls), (0, 0));
    assert!(outcome.gateway_upload_ratio <= 3.0, "{outcome:?}");
}

#[test]
fn without_the_gateway_a_few_nodes_ask_the_registry_and_share() {
    // Before it has sent everything, so that some pieces are nowhere else.
    let outcome = broken(12, 100, &[(60 * MILLI, Fault::Dies(0))]);
    assert_eq!(outcome.failed_pulls, 0);
    // As many as may at once; the others wait for them, because the scheduler lives.
    assert_eq!(outcome.direct_pulls, table::Policy::default().back_to_source_count);
}

#[test]
fn with_everything_dead_each_node_goes_to_the_registry() {
    let faults =
        [(40 * MILLI, Fault::SchedulerDies(0)), (41 * MILLI, Fault::Dies(0)), (42 * MILLI, Fault::Dies(2))];
    let outcome = broken(3, 50, &faults);
    assert_eq!(outcome.failed_pulls, 0);
    assert!(outcome.direct_pulls >= 1);
}
