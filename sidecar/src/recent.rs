//! `pulls.json`: what became of the latest requests for blobs, each as its line in the log tells it, for those who ask why
//! an image took so long, or did not come from the swarm.
//!
//! It names repositories, which `/metrics` does not; so it is shown on the node itself only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use shoal_model::{Nearness, TraceParent};
use shoal_ops::Context;

use crate::metrics::{Origin, Outcome, Step, Supply};
use crate::mirror::WantedBlob;

/// How many requests are kept: those for all blobs of some dozen images.
const MAX_KEPT: usize = 256;

/// What became of one request for a blob.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// When it came.
    pub(crate) at: SystemTime,
    pub(crate) wanted: WantedBlob,
    /// What the runtime calls itself.
    pub(crate) client: String,
    pub(crate) outcome: Outcome,
    pub(crate) supply: Option<Supply>,
    /// Bytes that went to the runtime.
    pub(crate) n_bytes: u64,
    /// Bytes that the node fetched of the blob, by origin.
    pub(crate) fetched: Vec<(Origin, u64)>,
    /// The steps down the fallback ladder, from the top.
    pub(crate) steps: Vec<Step>,
    /// Since it came.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) took: Duration,
    /// The trace that it belongs to.
    pub(crate) trace: Option<TraceParent>,
}

/// The latest requests; clones are of the same.
#[derive(Clone, Default)]
pub(crate) struct Recent(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// The latest last.
    pulls: VecDeque<Told>,
    n_forgotten: u64,
}

impl Told {
    /// Bytes from there, if there were any.
    pub(crate) fn bytes_from(&self, origin: Origin) -> Option<u64> {
        self.fetched.iter().find(|(it, _)| *it == origin).map(|(_, n_bytes)| *n_bytes)
    }

    /// The words of its steps.
    pub(crate) fn steps(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().map(|it| it.label())
    }

    fn document(&self) -> Value {
        let from = |origin| self.bytes_from(origin).unwrap_or_default();
        json!({
            "at": seconds(self.at),
            "registry": self.wanted.registry.as_str(),
            "repository": self.wanted.repository.as_str(),
            "digest": self.wanted.digest.to_string(),
            "client": self.client,
            "outcome": self.outcome.label(),
            "supply": self.supply.map(Supply::label),
            "bytes": self.n_bytes,
            "fetched": {
                "fromRack": from(Origin::Peer(Nearness::Rack)),
                "fromZone": from(Origin::Peer(Nearness::Zone)),
                "fromElsewhere": from(Origin::Peer(Nearness::Elsewhere)),
                "fromGateway": from(Origin::Gateway),
                "fromRegistry": from(Origin::Registry),
            },
            "steps": self.steps().collect::<Vec<_>>(),
            "firstByteMillis": self.first_byte.map(millis),
            "millis": millis(self.took),
            "trace": self.trace.map(|it| it.trace_id()),
        })
    }
}

impl Recent {
    /// Shows them to those on this machine.
    pub(crate) fn show(&self, ctx: &Context) {
        let (kept, started) = (self.clone(), seconds(SystemTime::now()));
        ctx.pages.add_local("/pulls.json", move || kept.document(started));
    }

    /// A request has ended.
    pub(crate) fn note(&self, told: Told) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.pulls.len() >= MAX_KEPT {
            kept.pulls.pop_front();
            kept.n_forgotten = kept.n_forgotten.saturating_add(1);
        }
        kept.pulls.push_back(told);
    }

    fn document(&self, started: u64) -> Value {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pulls: Vec<_> = kept.pulls.iter().rev().map(Told::document).collect();
        json!({ "startedAt": started, "forgotten": kept.n_forgotten, "pulls": pulls })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::Digest;

    fn told(number: u8) -> Told {
        Told {
            at: UNIX_EPOCH + Duration::from_secs(number.into()),
            wanted: WantedBlob {
                registry: "harbor.example.com".parse().unwrap(),
                repository: "team/app".parse().unwrap(),
                digest: Digest::from_sha256([number; 32]),
            },
            client: "containerd/2.1".to_owned(),
            outcome: Outcome::Complete,
            supply: Some(Supply::Swarm),
            n_bytes: 100,
            fetched: vec![(Origin::Peer(Nearness::Rack), 60), (Origin::Gateway, 40)],
            steps: vec![Step::Gateway],
            first_byte: Some(Duration::from_millis(12)),
            took: Duration::from_millis(340),
            trace: TraceParent::new(7, 8, true),
        }
    }

    #[test]
    fn a_pull_is_shown_as_the_log_tells_it() {
        let recent = Recent::default();
        recent.note(told(7));
        let expected = json!({
            "at": 7,
            "registry": "harbor.example.com",
            "repository": "team/app",
            "digest": format!("sha256:{}", "07".repeat(32)),
            "client": "containerd/2.1",
            "outcome": "complete",
            "supply": "swarm",
            "bytes": 100,
            "fetched": { "fromRack": 60, "fromZone": 0, "fromElsewhere": 0, "fromGateway": 40, "fromRegistry": 0 },
            "steps": ["gateway"],
            "firstByteMillis": 12,
            "millis": 340,
            "trace": "00000000000000000000000000000007",
        });
        assert_eq!(recent.document(1), json!({ "startedAt": 1, "forgotten": 0, "pulls": [expected] }));
    }

    #[test]
    fn the_latest_are_kept_and_the_others_counted() {
        let recent = Recent::default();
        let n_noted = MAX_KEPT + 3;
        (0..n_noted).for_each(|it| recent.note(told(it as u8)));
        let document = recent.document(0);
        let pulls = document["pulls"].as_array().unwrap();
        assert_eq!((pulls.len(), &document["forgotten"]), (MAX_KEPT, &json!(3)));
        assert_eq!(pulls[0]["at"], (n_noted - 1) as u8, "the latest comes first");
    }
}
