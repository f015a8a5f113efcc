//! What the demo found: a table for people, one JSON object for programs.
//!
//! The figures are those of the first pull. The second, from the nodes' own stores, is one line of the table.

use std::fmt::{self, Display};

use indicatif::BinaryBytes;
use serde_json::{Value, json};

use super::puller::Pulled;
use crate::region::fleet::Taken;

/// What was pulled on all nodes, twice.
pub(super) struct Report {
    pub(super) first: Round,
    /// The same pull once more.
    pub(super) again: Round,
    /// Bytes that the registry sent; unknown where it is not the demo's own.
    pub(super) n_registry: Option<u64>,
    /// Bytes that the gateway sent to nodes.
    pub(super) n_gateway: u64,
}

/// One pull on all nodes at the same time.
pub(super) struct Round(pub(super) Vec<NodeRound>);

/// What one node did in a round.
pub(super) struct NodeRound {
    pub(super) name: String,
    pub(super) taken: Taken,
    pub(super) pulled: Pulled,
}

impl Report {
    /// Whether every digest matched on every node, both times.
    pub(super) fn is_verified(&self) -> bool {
        [&self.first, &self.again].into_iter().all(|it| it.pulled().is_verified())
    }

    /// The figures as one JSON object.
    pub(super) fn json(&self) -> Value {
        let (first, n_image) = (&self.first, self.first.n_image());
        json!({
            "nodes": first.0.len(),
            "imageBytes": n_image,
            "registryBytes": self.n_registry,
            "registryEgressRatio": self.n_registry.map(|it| ratio(it, n_image)),
            "gatewayUploadRatio": ratio(self.n_gateway, n_image),
            "peerShare": first.peer_share(),
            "digestsVerified": self.is_verified(),
            "seconds": first.pulled().elapsed.as_secs_f64(),
        })
    }
}

impl Round {
    /// Bytes of the image's config and layers.
    fn n_image(&self) -> u64 {
        self.0.first().map_or(0, |it| it.pulled.n_bytes)
    }

    /// What all nodes took.
    fn taken(&self) -> Taken {
        self.0.iter().map(|it| it.taken).sum()
    }

    /// What all nodes pulled, in the time that the last one needed.
    fn pulled(&self) -> Pulled {
        self.0.iter().fold(Pulled::default(), |sum, it| Pulled {
            n_bytes: sum.n_bytes + it.pulled.n_bytes,
            n_digests: sum.n_digests + it.pulled.n_digests,
            n_verified: sum.n_verified + it.pulled.n_verified,
            elapsed: sum.elapsed.max(it.pulled.elapsed),
        })
    }

    /// The part of the bytes in the nodes' stores that came from other nodes.
    fn peer_share(&self) -> f64 {
        let Taken { registry, gateway, peers, cache: _ } = self.taken();
        ratio(peers, registry + gateway + peers)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, n_image) = (&self.first, self.first.n_image());
        let head = ["registry", "gateway", "peers", "cache", "time", "verified"];
        line(f, "", &head.map(String::from))?;
        for node in &first.0 {
            line(f, &node.name, &cells(&node.taken, &node.pulled))?;
        }
        line(f, "all", &cells(&first.taken(), &first.pulled()))?;
        line(f, "again", &cells(&self.again.taken(), &self.again.pulled()))?;

        writeln!(f, "\nimage          {:>11}", bytes(n_image))?;
        match self.n_registry {
            Some(it) => {
                writeln!(f, "registry sent  {:>11}  {:.2} x the image", bytes(it), ratio(it, n_image))?
            }
            None => writeln!(f, "registry sent      unknown")?,
        }
        let n_gateway = self.n_gateway;
        writeln!(f, "gateway sent   {:>11}  {:.2} x the image", bytes(n_gateway), ratio(n_gateway, n_image))?;
        let (n_peers, share) = (first.taken().peers, first.peer_share() * 100.0);
        writeln!(f, "peers sent     {:>11}  {share:.1} % of what the nodes took in", bytes(n_peers))
    }
}

/// A line of the table; 79 columns, so that it fits everywhere.
fn line(f: &mut fmt::Formatter<'_>, name: &str, cells: &[String; 6]) -> fmt::Result {
    let [registry, gateway, peers, cache, time, verified] = cells;
    writeln!(f, "{name:<7}{registry:>12}{gateway:>12}{peers:>12}{cache:>12}{time:>10}{verified:>11}")
}

fn cells(taken: &Taken, pulled: &Pulled) -> [String; 6] {
    let &Taken { registry, gateway, peers, cache } = taken;
    let [registry, gateway, peers, cache] = [registry, gateway, peers, cache].map(bytes);
    let time = format!("{:.2} s", pulled.elapsed.as_secs_f64());
    [registry, gateway, peers, cache, time, format!("{}/{}", pulled.n_verified, pulled.n_digests)]
}

fn bytes(n_bytes: u64) -> String {
    BinaryBytes(n_bytes).to_string()
}

/// How many times `whole` fits into `part`; nothing of nothing is nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A pull on two nodes of an image of 8 MiB.
    fn round(n_verified: usize) -> Round {
        let node = |name: &str, gateway, peers, seconds| NodeRound {
            name: name.into(),
            taken: Taken { gateway: gateway * MIB, peers: peers * MIB, ..Taken::default() },
            pulled: Pulled {
                n_bytes: 8 * MIB,
                n_digests: 5,
                n_verified,
                elapsed: Duration::from_secs(seconds),
            },
        };
        Round(vec![node("node1", 6, 2, 3), node("node2", 2, 6, 2)])
    }

    fn report(first: Round, again: Round) -> Report {
        Report { first, again, n_registry: Some(8 * MIB), n_gateway: 10 * MIB }
    }

    #[test]
    fn the_figures_are_those_of_the_first_pull() {
        let mut report = report(round(5), Round(Vec::new()));
        let expected = json!({
            "nodes": 2,
            "imageBytes": 8 * MIB,
            "registryBytes": 8 * MIB,
            "registryEgressRatio": 1.0,
            "gatewayUploadRatio": 1.25,
            "peerShare": 0.5,
            "digestsVerified": true,
            "seconds": 3.0,
        });
        assert_eq!(report.json(), expected);
        report.n_registry = None;
        assert!(report.json()["registryBytes"].is_null() && report.json()["registryEgressRatio"].is_null());
    }

    #[test]
    fn one_wrong_digest_in_either_round_is_told() {
        for (first, again) in [(4, 5), (5, 4)] {
            assert_eq!(report(round(first), round(again)).json()["digestsVerified"], json!(false));
        }
    }

    #[test]
    fn the_table_fits_a_narrow_terminal() {
        let text = report(round(5), round(5)).to_string();
        assert!(text.lines().all(|it| it.len() < 80), "{text}");
        assert!(text.contains("gateway sent     10.00 MiB  1.25 x the image"), "{text}");
    }
}
