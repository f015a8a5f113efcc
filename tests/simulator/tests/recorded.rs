//! Runs that `cargo xtask bench swarm` measured in the lab, worked out anew: what the simulator says of fleets
//! that nobody can try is worth as much as what it says of these.
//!
//! A recording is one of the objects under `runs` that the bench prints as JSON.

use shoal_simulator::Recording;

fn recording(text: &str) -> Recording {
    serde_json::from_str(text).expect("a recording")
}

/// The simulated time of the last node over the measured one.
#[track_caller]
fn check(text: &str, n_nodes: usize, expected: std::ops::Range<f64>) {
    let recorded = recording(text);
    assert_eq!((recorded.joins.len(), recorded.pulls.len()), (n_nodes, n_nodes));
    let ratio = recorded.replayed_over_measured(1..=5).expect("links that carry something");
    assert!(expected.contains(&ratio), "simulated over measured: {ratio}");
}

#[test]
fn twenty_measured_nodes_are_replayed_within_15_percent() {
    check(include_str!("recorded/lab-20.json"), 20, 0.85..1.15);
}

#[test]
fn fifty_measured_nodes_are_replayed_within_15_percent() {
    check(include_str!("recorded/lab-50.json"), 50, 0.85..1.15);
}

#[test]
fn links_that_carry_nothing_and_cuts_that_do_not_exist_make_no_world() {
    let recorded = recording(include_str!("recorded/lab-20.json"));
    for wrong in [
        Recording { node_rate: 0, ..recorded.clone() },
        Recording { gateway_rate: 0, ..recorded.clone() },
        Recording { piece_length: 0, ..recorded.clone() },
    ] {
        assert!(wrong.world().is_none(), "{wrong:?}");
    }
}
