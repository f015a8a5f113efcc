//! What is tried: whom a fault hits, how it goes on, and when it comes.

use std::fmt;

use shoal_tests::harm::{Harm, Victim};

/// How many nodes there are. The last ones are those that may be harmed.
pub(super) const N_NODES: u16 = 6;

/// Whom a fault hits.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) victims: &'static [Victim],
    /// What happens to them.
    pub(super) courses: &'static [Course],
}

impl Row {
    const fn of_parts(name: &'static str, victims: &'static [Victim]) -> Self {
        Self { name, victims, courses: &Course::OF_PARTS }
    }

    /// The nodes whose pulls count: those that are not harmed themselves, or all where none is left.
    pub(super) fn measured(&self) -> Vec<usize> {
        let all = 0..usize::from(N_NODES);
        let is_well = |it: &usize| !self.victims.contains(&Victim::Sidecar(*it));
        let well: Vec<_> = all.clone().filter(is_well).collect();
        if well.is_empty() { all.collect() } else { well }
    }
}

/// The regions that are harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One gateway, as most have.
    OneGateway,
    /// Two gateways that share a Redis.
    TwoGateways,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::OneGateway, Self::TwoGateways];

    /// What is tried there.
    pub(super) const fn rows(self) -> &'static [Row] {
        match self {
            Self::OneGateway => &ROWS,
            Self::TwoGateways => &ROWS_OF_TWO,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneGateway => "one gateway",
            Self::TwoGateways => "two gateways and Redis",
        })
    }
}

const ROWS_OF_TWO: [Row; 2] =
    [Row::of_parts("one gateway of two", &[Victim::Gateway]), Row::of_parts("Redis", &[Victim::Redis])];

const ROWS: [Row; 9] = [
    Row::of_parts("scheduler", &[Victim::Scheduler]),
    Row::of_parts("gateway", &[Victim::Gateway]),
    Row::of_parts("seed's upstream", &[Victim::Registry]),
    Row::of_parts("one peer", &[Victim::Sidecar(5)]),
    Row::of_parts("half of the peers", &[Victim::Sidecar(3), Victim::Sidecar(4), Victim::Sidecar(5)]),
    Row {
        name: "disks of half of the peers",
        victims: &[Victim::NodeDisk(3), Victim::NodeDisk(4), Victim::NodeDisk(5)],
        courses: &[
            Course::Stays(Harm::Full),
            Course::Stays(Harm::ReadOnly),
            Course::Stays(Harm::Broken),
            Course::Stays(Harm::Paused),
            Course::BackAgain(Harm::Paused),
        ],
    },
    // An empty one in place of a broken one would make it another gateway.
    Row {
        name: "the gateway's disk",
        victims: &[Victim::GatewayDisk],
        courses: &[
            Course::Stays(Harm::Full),
            Course::Stays(Harm::Paused),
            Course::BackAgain(Harm::Full),
            Course::BackAgain(Harm::Paused),
        ],
    },
    Row::of_parts("gateway and scheduler", &[Victim::Gateway, Victim::Scheduler]),
    Row::of_parts(
        "all of Shoal",
        &[
            Victim::Gateway,
            Victim::Scheduler,
            Victim::Sidecar(0),
            Victim::Sidecar(1),
            Victim::Sidecar(2),
            Victim::Sidecar(3),
            Victim::Sidecar(4),
            Victim::Sidecar(5),
        ],
    ),
];

/// What happens, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// The harm lasts until all pulls have ended.
    Stays(Harm),
    /// The harm is taken back in the middle: what was killed is started again.
    BackAgain(Harm),
}

impl Course {
    const OF_PARTS: [Self; 5] = [
        Self::Stays(Harm::Killed),
        Self::Stays(Harm::Paused),
        Self::Stays(Harm::CutOff),
        Self::Stays(Harm::Slow),
        Self::BackAgain(Harm::Killed),
    ];

    pub(super) const fn harm(self) -> Harm {
        match self {
            Self::Stays(harm) | Self::BackAgain(harm) => harm,
        }
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stays(harm) => harm.fmt(f),
            Self::BackAgain(Harm::Killed) => f.write_str("back again"),
            Self::BackAgain(harm) => write!(f, "{harm}, and back again"),
        }
    }
}

/// When the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Nobody has asked for the image yet.
    Before,
    /// All nodes are in the middle of it.
    During,
    /// All nodes but one have it. That one pulls it, and another one pulls it once more.
    After,
}

/// All of them.
pub(super) const MOMENTS: [Moment; 3] = [Moment::Before, Moment::During, Moment::After];

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        })
    }
}

/// Why a cell is not tried.
pub(super) fn not_tried(row: &Row, course: Course, moment: Moment) -> Option<&'static str> {
    let harms = |victim| row.victims.contains(&victim);
    match (course, moment) {
        (Course::Stays(Harm::Killed | Harm::Paused), Moment::Before | Moment::During)
            if harms(Victim::Registry) =>
        {
            Some("no source")
        }
        // The runtime asks the registry for the manifest.
        (Course::Stays(Harm::Killed | Harm::Paused), Moment::After) if harms(Victim::Registry) => {
            Some("no manifest")
        }
        (Course::BackAgain(_), Moment::Before | Moment::After) if harms(Victim::Registry) => {
            Some("no manifest")
        }
        // Its supervisor ends a sidecar that stands still, and here it has none.
        (Course::Stays(Harm::Paused), _) if harms(Victim::Sidecar(0)) => Some("needs a supervisor"),
        (Course::Stays(Harm::Slow), _) if harms(Victim::Sidecar(0)) => Some("slow without Shoal, too"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_well_are_measured_and_all_where_none_is() {
        let measured = |name: &str| ROWS.iter().find(|it| it.name == name).map(Row::measured);
        assert_eq!(measured("gateway"), Some(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(measured("half of the peers"), Some(vec![0, 1, 2]));
        assert_eq!(measured("all of Shoal"), Some(vec![0, 1, 2, 3, 4, 5]));
    }
}
