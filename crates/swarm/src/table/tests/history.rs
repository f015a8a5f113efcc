//! What holds after any history of events.

use super::*;
use proptest::prelude::*;

/// What can happen to a table, with small numbers for who and what.
#[derive(Clone, Debug)]
enum Step {
    Join(usize, usize),
    Leave(usize),
    Want(usize, bool),
    Unwant(usize),
    Gain(usize, u32, u32),
    Drop(usize),
    Cut(usize),
    Strand(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..14_usize;
    prop_oneof![
        2 => (node.clone(), 0..3_usize).prop_map(|(node, rack)| Step::Join(node, rack)),
        1 => node.clone().prop_map(Step::Leave),
        4 => (node.clone(), any::<bool>()).prop_map(|(node, moved)| Step::Want(node, moved)),
        1 => node.clone().prop_map(Step::Unwant),
        8 => (node.clone(), 0..PIECES, 1..6_u32).prop_map(|(node, at, n)| Step::Gain(node, at, n)),
        1 => node.clone().prop_map(|node| Step::Gain(node, 0, PIECES)),
        1 => node.clone().prop_map(Step::Drop),
        1 => node.clone().prop_map(Step::Cut),
        1 => node.prop_map(Step::Strand),
        2 => (0..9_u64).prop_map(Step::Wait),
    ]
}

fn name(number: usize) -> String {
    if number < 2 { format!("gw{number}") } else { format!("n{number:02}") }
}

/// Two gateways, and nodes in three racks of two zones.
fn take(it: &mut Script, step: &Step) -> Vec<Order> {
    let event = match *step {
        Step::Join(number, rack) => {
            let role = if number < 2 { Role::Gateway } else { Role::Sidecar };
            let zone = if rack == 0 { "y" } else { "z" };
            let place = Place { zone: zone.into(), rack: format!("r{rack}").as_str().into() };
            Event::Joined { node: id(&name(number)), role, place }
        }
        Step::Leave(number) => Event::Left(id(&name(number))),
        Step::Want(number, moved) => Event::Want { report: report(&name(number), false, &[]), moved },
        Step::Unwant(number) => Event::Unwant { node: id(&name(number)), key: key() },
        Step::Gain(number, at, n) => return it.gain(&name(number), at..(at + n).min(PIECES)),
        Step::Drop(number) => Event::Progress(report(&name(number), true, &[])),
        Step::Cut(number) => {
            let geometry = Geometry::stated(u64::from(PIECES) << 20, 2 << 20).unwrap();
            let report = Report { geometry, ..report(&name(number), false, &[]) };
            Event::Want { report, moved: false }
        }
        Step::Strand(number) => Event::Stranded { node: id(&name(number)), key: key() },
        Step::Wait(seconds) => return it.wait(Duration::from_secs(seconds)),
    };
    it.on(event)
}

/// All that an order names: whom it is for, and whom it tells of.
fn named(order: &Order) -> Vec<&NodeId> {
    let others = match &order.what {
        What::Neighbours { near, far, gateway, .. } => near.iter().chain(far).chain(gateway).collect(),
        What::Lease { from, .. } => vec![from],
        What::Seed { holders } => holders.iter().collect(),
        What::GoDirect => Vec::new(),
    };
    others.into_iter().chain([&order.to]).collect()
}

proptest! {
    #[test]
    fn whatever_happens_each_level_knows_what_it_holds_and_brings_in(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut it = Script::new(Policy::default());
        (0..10).for_each(|number| drop(take(&mut it, &Step::Join(number, number % 3))));
        for step in steps {
            for (importer, from, pieces) in imports(&take(&mut it, &step)) {
                let blob = it.blob();
                prop_assert!(blob.wants(it.number(&importer)));
                if !from.starts_with("gw") {
                    let held = blob.held(it.number(&from)).unwrap();
                    prop_assert!(pieces.iter().all(|it| held.contains(*it)), "{} lacks {:?}", from, pieces);
                }
            }
            it.table.check();
        }
    }

    /// The number of a node that has left is given to the next one, which stands elsewhere and holds nothing.
    #[test]
    fn whoever_is_told_or_told_of_is_there_and_where_it_says(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut it = Script::new(Policy::default());
        let mut racks = BTreeMap::new();
        for step in (0..10).map(|number| Step::Join(number, number % 3)).chain(steps) {
            let orders = take(&mut it, &step);
            match step {
                Step::Join(number, rack) => drop(racks.insert(id(&name(number)), rack)),
                Step::Leave(number) => drop(racks.remove(&id(&name(number)))),
                _ => {}
            }
            prop_assert_eq!(it.table.n_nodes(), racks.len());
            for order in &orders {
                prop_assert!(named(order).iter().all(|it| racks.contains_key(*it)), "{:?}", order);
                if let What::Neighbours { near, far, .. } = &order.what {
                    let is_mine = |it: &NodeId| racks[it] == racks[&order.to];
                    let home = near.iter().filter(|it| is_mine(it)).count();
                    prop_assert!(near.iter().chain(far).all(|it| *it != order.to), "{:?}", order);
                    prop_assert!(home > 0 || !far.iter().any(is_mine), "near ones are far: {:?}", order);
                }
            }
        }
    }
}
