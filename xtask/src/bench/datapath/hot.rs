//! A blob that the node has: from the sidecar to a client, beside the same bytes from nginx.
//!
//! With one stream the server has one processor and the client another. Left to itself the kernel puts both on the
//! same one at times, and then who is faster is a matter of luck.

use std::time::Duration;

use anyhow::Result;

use crate::bench::cpu;
use crate::bench::download::{self, Download, Place};
use crate::bench::origin::Origin;
use crate::bench::stage::Stage;
use crate::region::fleet::Security;

/// How many downloads one measurement consists of: as many bytes with one stream as with four.
const DOWNLOADS: usize = 4;

/// One round.
pub(super) struct Hot {
    /// One download after the other.
    pub(super) one_stream: Pair,
    /// Four at once.
    pub(super) four_streams: Pair,
}

/// The same work by both.
pub(super) struct Pair {
    pub(super) sidecar: Sample,
    pub(super) nginx: Sample,
}

/// One measurement.
pub(super) struct Sample {
    /// GiB per second.
    pub(super) rate: f64,
    /// CPU seconds of the server per GiB.
    pub(super) cpu_per_gib: f64,
    /// Until each client had its first byte.
    pub(super) first_bytes: Vec<Duration>,
}

/// Starts a node, has it fetch the blob, and measures.
pub(super) async fn rounds(origin: &Origin, n_rounds: u32) -> Result<Vec<Hot>> {
    let stage = Stage::start(&origin.source()?, 1, Security::Mtls).await?;
    let mut rounds = Vec::new();
    for mirror in stage.mirrors() {
        let hot = Bench { origin, stage: &stage, place: origin.through(mirror) };
        // The first brings the blob here, the second finds it verified and in the page cache.
        for _ in 0..2 {
            download::all([hot.place.clone(), origin.direct()]).await?;
        }
        for round in 1..=n_rounds {
            let one_stream = hot.pair(round, 1).await?;
            rounds.push(Hot { one_stream, four_streams: hot.pair(round, DOWNLOADS).await? });
            eprintln!("hot: round {round} of {n_rounds} is done");
        }
    }
    stage.end().await?;
    Ok(rounds)
}

struct Bench<'a> {
    origin: &'a Origin,
    stage: &'a Stage,
    place: Place,
}

impl Bench<'_> {
    /// Measures both; who comes first changes from round to round, so that neither has the better place.
    async fn pair(&self, round: u32, at_once: usize) -> Result<Pair> {
        if round.is_multiple_of(2) {
            let sidecar = self.sidecar(at_once).await?;
            return Ok(Pair { sidecar, nginx: self.nginx(at_once).await? });
        }
        let nginx = self.nginx(at_once).await?;
        Ok(Pair { sidecar: self.sidecar(at_once).await?, nginx })
    }

    async fn sidecar(&self, at_once: usize) -> Result<Sample> {
        sample(&self.place, at_once, &[self.stage.process("node1")?]).await
    }

    async fn nginx(&self, at_once: usize) -> Result<Sample> {
        sample(&self.origin.direct(), at_once, &self.origin.processes()?).await
    }
}

async fn sample(place: &Place, at_once: usize, server: &[u32]) -> Result<Sample> {
    let all = cpu::processors()?;
    let [of_server, of_clients] = if at_once == 1 { cpu::two_of(&all)? } else { [all, all] };
    cpu::confine(server, &of_server)?;
    let before = cpu::used(server)?;
    let (mut downloads, mut wall) = (Vec::<Download>::new(), Duration::ZERO);
    for _ in 0..DOWNLOADS / at_once {
        let together = download::all_on(&of_clients, vec![place.clone(); at_once]).await?;
        wall += together.iter().map(|it| it.whole).max().unwrap_or_default();
        downloads.extend(together);
    }
    let (cpu, gib) = (cpu::used(server)?.saturating_sub(before), download::gib(&downloads));
    cpu::confine(server, &all)?;
    Ok(Sample {
        rate: gib / wall.as_secs_f64(),
        cpu_per_gib: cpu.as_secs_f64() / gib,
        first_bytes: downloads.iter().map(|it| it.first_byte).collect(),
    })
}
