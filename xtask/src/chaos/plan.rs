//! What happens when: pure, and the same for the same seed.
//!
//! Two tracks run side by side, one of the services that all nodes need and one of the nodes. On each, one fault
//! follows the other with a rest between, so at most two are there at once, and a pull always has a source:
//! nodes reach the registry by themselves but for the moments in which it stands still.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use shoal_model::Rng;
use shoal_tests::harm::{Harm, Victim};

use super::region::N_NODES;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Taken back when its time is over.
    Harm(Victim, Harm),
    /// Bytes flip in what the victim has on its disk.
    Damage(Victim),
    /// The next bodies that the registry sends end early.
    Breaks,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Harm(victim, harm) => write!(f, "{victim} {harm}"),
            Self::Damage(victim) => write!(f, "{victim} damaged at rest"),
            Self::Breaks => f.write_str("registry breaks off"),
        }
    }
}

impl Fault {
    /// What it is counted as.
    fn kind(self) -> String {
        match self {
            Self::Harm(Victim::Sidecar(_), harm) => format!("sidecar {harm}"),
            Self::Damage(Victim::Sidecar(_)) => "sidecar damaged at rest".to_owned(),
            Self::Harm(Victim::NodeDisk(_), harm) => format!("sidecar's disk {harm}"),
            other => other.to_string(),
        }
    }
}

/// A fault and its time, from the beginning of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) fault: Fault,
    pub(super) begins: Duration,
    pub(super) ends: Duration,
}

/// All faults of a run.
pub(super) struct Plan {
    /// By the time at which they begin.
    pub(super) faults: Vec<Planned>,
}

/// How long a fault lasts, and the rest after it, in milliseconds.
const LASTS: (usize, usize) = (500, 6000);
const RESTS: (usize, usize) = (500, 3000);
/// How long the registry may stand still. Nobody can be served by it meanwhile.
const STILL: usize = 2000;

impl Plan {
    pub(super) fn new(seed: u64, lasts: Duration) -> Self {
        let mut rng = Rng::new(seed);
        let mut faults = track(&mut rng, lasts, of_services);
        faults.extend(track(&mut rng, lasts, of_nodes));
        faults.sort_by_key(|it| it.begins);
        Self { faults }
    }

    /// How many there are of each kind.
    pub(super) fn counted(&self) -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for planned in &self.faults {
            *counted.entry(planned.fault.kind()).or_default() += 1;
        }
        counted
    }

    /// For how long, between these moments, nothing could come to the node with this number whoever has it: it was cut
    /// off from everybody, or its own sidecar stood still with the requests that it had taken.
    pub(super) fn alone(&self, node: usize, from: Duration, to: Duration) -> Duration {
        let is_own = |it: &&Planned| match it.fault {
            Fault::Harm(Victim::Sidecar(victim), Harm::CutOff | Harm::Paused) => victim == node,
            _ => false,
        };
        let own = self.faults.iter().filter(is_own);
        own.map(|it| it.ends.min(to).saturating_sub(it.begins.max(from))).sum()
    }
}

fn track(rng: &mut Rng, lasts: Duration, choose: fn(&mut Rng) -> Fault) -> Vec<Planned> {
    let mut faults = Vec::new();
    let mut begins = between(rng, RESTS);
    loop {
        let fault = choose(rng);
        let longest = match fault {
            Fault::Harm(Victim::Registry, Harm::Paused) => STILL,
            _ => LASTS.1,
        };
        let ends = begins + between(rng, (LASTS.0, longest));
        if ends > lasts {
            return faults;
        }
        faults.push(Planned { fault, begins, ends });
        begins = ends + between(rng, RESTS);
    }
}

fn of_services(rng: &mut Rng) -> Fault {
    use {Harm as H, Victim as V};
    const ALL: [Fault; 15] = [
        Fault::Harm(V::Scheduler, H::Killed),
        Fault::Harm(V::Scheduler, H::Paused),
        Fault::Harm(V::Scheduler, H::CutOff),
        Fault::Harm(V::Gateway, H::Killed),
        Fault::Harm(V::Gateway, H::Paused),
        Fault::Harm(V::Gateway, H::CutOff),
        Fault::Harm(V::Gateway, H::Slow),
        Fault::Harm(V::Redis, H::Killed),
        Fault::Harm(V::Redis, H::Paused),
        Fault::Harm(V::Redis, H::CutOff),
        Fault::Harm(V::Registry, H::CutOffFromGateway),
        Fault::Harm(V::Registry, H::Paused),
        Fault::Damage(V::Gateway),
        Fault::Harm(V::GatewayDisk, H::Full),
        Fault::Breaks,
    ];
    ALL[rng.below(ALL.len())]
}

fn of_nodes(rng: &mut Rng) -> Fault {
    let number = rng.below(usize::from(N_NODES));
    let victim = Victim::Sidecar(number);
    let harms = [Harm::Killed, Harm::Paused, Harm::CutOff, Harm::CutOffFromGateway, Harm::Slow];
    match rng.below(harms.len() + 2) {
        n if n < harms.len() => Fault::Harm(victim, harms[n]),
        n if n == harms.len() => Fault::Harm(Victim::NodeDisk(number), Harm::Full),
        _ => Fault::Damage(victim),
    }
}

fn between(rng: &mut Rng, (least, most): (usize, usize)) -> Duration {
    Duration::from_millis((least + rng.below(most - least)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn the_same_seed_makes_the_same_plan() {
        assert_eq!(Plan::new(3, MINUTES).faults, Plan::new(3, MINUTES).faults);
        assert_ne!(Plan::new(3, MINUTES).faults, Plan::new(4, MINUTES).faults);
    }

    #[test]
    fn a_long_run_has_faults_of_every_kind_and_ends_with_none() {
        let plan = Plan::new(1, MINUTES);
        assert_eq!(plan.counted().len(), 22, "{:?}", plan.counted());
        assert!(plan.faults.iter().all(|it| it.begins < it.ends && it.ends <= MINUTES));
    }

    #[test]
    fn a_node_is_alone_while_it_is_cut_off_itself_or_stands_still() {
        let at = Duration::from_secs;
        let fault = |victim, harm, begins, ends| {
            let (fault, begins, ends) = (Fault::Harm(Victim::Sidecar(victim), harm), at(begins), at(ends));
            Planned { fault, begins, ends }
        };
        let faults = vec![
            fault(0, Harm::CutOff, 2, 6),
            fault(0, Harm::Killed, 7, 9),
            fault(0, Harm::Paused, 10, 14),
            fault(1, Harm::Paused, 15, 19),
        ];
        let plan = Plan { faults };
        assert_eq!(plan.alone(0, at(0), at(20)), at(8));
        assert_eq!(plan.alone(0, at(4), at(11)), at(3));
        assert_eq!(plan.alone(0, at(6), at(10)), at(0));
        assert_eq!(plan.alone(1, at(0), at(16)), at(1));
    }

    #[test]
    fn no_part_has_two_faults_at_once() {
        let plan = Plan::new(2, MINUTES);
        let is_of_node = |it: &Planned| {
            use Fault::{Damage, Harm};
            use Victim::{NodeDisk, Sidecar};
            matches!(it.fault, Harm(Sidecar(_) | NodeDisk(_), _) | Damage(Sidecar(_)))
        };
        for of_nodes in [false, true] {
            let track: Vec<_> = plan.faults.iter().filter(|it| is_of_node(it) == of_nodes).collect();
            assert!(track.windows(2).all(|it| it[0].ends < it[1].begins));
        }
    }
}
