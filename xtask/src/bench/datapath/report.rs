//! What the rounds come to.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::cold::Cold;
use super::hot::{Hot, Pair, Sample};
use super::pieces::Pieces;
use crate::bench::figures::Spread;

/// All samples of a run; none of a part that was left out.
pub(super) struct Report {
    pub(super) pieces: Option<Pieces>,
    pub(super) hot: Vec<Hot>,
    /// One node, cold.
    pub(super) one: Vec<Cold>,
    /// Four nodes, cold, by plain TCP.
    pub(super) plain: Vec<Cold>,
    /// Four nodes, cold, by mutual TLS.
    pub(super) mtls: Vec<Cold>,
    /// Until the first byte of a blob that a neighbour holds.
    pub(super) near: Vec<Duration>,
    /// The machine's load averages, before and after.
    pub(super) load: [String; 2],
}

impl Report {
    /// The figures for machines: medians by name, and each row with its spread.
    pub(super) fn json(&self) -> Value {
        let first_bytes = |cold: &[Cold]| first_bytes(cold.iter().flat_map(|it| &it.first_bytes)).json();
        let rows = self.rows().into_iter().map(|(name, spread)| (name.to_owned(), spread.json()));
        json!({
            "cpuOverNginx": self.cpu_over_nginx().median(),
            "oneStreamOverNginx": self.over_nginx(|it| &it.one_stream).median(),
            "fourStreamsOverNginx": self.over_nginx(|it| &it.four_streams).median(),
            "pieceCpuSecondsPerGiB": {
                "plain": self.pieces_cpu("plain"), "mtls": self.pieces_cpu("tls"),
            },
            "coldCpuSecondsPerGiB": {
                "plain": cpu(&self.plain).median(), "mtls": cpu(&self.mtls).median(),
            },
            "firstByteMillis": {
                "hot": self.hot_first_bytes().json(),
                "coldOneNode": first_bytes(&self.one),
                "coldFourNodes": first_bytes(&self.mtls),
                "coldNeighbour": self.near_first_bytes().json(),
            },
            "rows": rows.collect::<serde_json::Map<_, _>>(),
            "pieces": self.pieces.as_ref().map(|it| &it.0),
            "load": self.load,
        })
    }

    fn rows(&self) -> Vec<(&'static str, Spread)> {
        let hot = |of: fn(&Hot) -> f64| Spread::of(self.hot.iter().map(of));
        let cold_first_bytes = |cold: &[Cold]| first_bytes(cold.iter().flat_map(|it| &it.first_bytes));
        vec![
            ("hot: CPU of the sidecar over nginx's", self.cpu_over_nginx()),
            ("hot, one stream: rate over nginx's", self.over_nginx(|it| &it.one_stream)),
            ("hot, four streams: rate over nginx's", self.over_nginx(|it| &it.four_streams)),
            ("hot, one stream: sidecar, CPU-s/GiB", hot(|it| it.one_stream.sidecar.cpu_per_gib)),
            ("hot, one stream: nginx, CPU-s/GiB", hot(|it| it.one_stream.nginx.cpu_per_gib)),
            ("hot, four streams: sidecar, CPU-s/GiB", hot(|it| it.four_streams.sidecar.cpu_per_gib)),
            ("hot, four streams: nginx, CPU-s/GiB", hot(|it| it.four_streams.nginx.cpu_per_gib)),
            ("hot, one stream: sidecar, GiB/s", hot(|it| it.one_stream.sidecar.rate)),
            ("hot, one stream: nginx, GiB/s", hot(|it| it.one_stream.nginx.rate)),
            ("hot, four streams: sidecar, GiB/s", hot(|it| it.four_streams.sidecar.rate)),
            ("hot, four streams: nginx, GiB/s", hot(|it| it.four_streams.nginx.rate)),
            ("hot: first byte, ms", self.hot_first_bytes()),
            ("cold, one node, mTLS: seconds", seconds(&self.one)),
            ("cold, one node, mTLS: first byte, ms", cold_first_bytes(&self.one)),
            ("cold, four nodes, plain: CPU-s/GiB", cpu(&self.plain)),
            ("cold, four nodes, plain: seconds", seconds(&self.plain)),
            ("cold, four nodes, plain: time over direct", over_direct(&self.plain)),
            ("cold, four nodes, mTLS: CPU-s/GiB", cpu(&self.mtls)),
            ("cold, four nodes, mTLS: seconds", seconds(&self.mtls)),
            ("cold, four nodes, mTLS: time over direct", over_direct(&self.mtls)),
            ("cold, four nodes, mTLS: first byte, ms", cold_first_bytes(&self.mtls)),
            ("cold, four nodes, mTLS: memory of a sidecar, MiB", memory(&self.mtls)),
            ("cold, a neighbour has it, mTLS: first byte, ms", self.near_first_bytes()),
        ]
    }

    fn cpu_over_nginx(&self) -> Spread {
        let cpu = |of: fn(&Pair) -> &Sample, it: &Hot| {
            of(&it.one_stream).cpu_per_gib + of(&it.four_streams).cpu_per_gib
        };
        Spread::of(self.hot.iter().map(|it| cpu(|pair| &pair.sidecar, it) / cpu(|pair| &pair.nginx, it)))
    }

    fn over_nginx(&self, of: fn(&Hot) -> &Pair) -> Spread {
        Spread::of(self.hot.iter().map(of).map(|it| it.sidecar.rate / it.nginx.rate))
    }

    fn pieces_cpu(&self, security: &str) -> Option<f64> {
        self.pieces.as_ref()?.cpu_per_gib(security)
    }

    fn near_first_bytes(&self) -> Spread {
        first_bytes(&self.near)
    }

    fn hot_first_bytes(&self) -> Spread {
        first_bytes(self.hot.iter().flat_map(|it| &it.one_stream.sidecar.first_bytes))
    }
}

fn cpu(cold: &[Cold]) -> Spread {
    Spread::of(cold.iter().map(|it| it.cpu_per_gib))
}

fn seconds(cold: &[Cold]) -> Spread {
    Spread::of(cold.iter().map(|it| it.whole.as_secs_f64()))
}

fn memory(cold: &[Cold]) -> Spread {
    Spread::of(cold.iter().map(|it| it.resident_mib))
}

fn over_direct(cold: &[Cold]) -> Spread {
    Spread::of(cold.iter().map(|it| it.whole.as_secs_f64() / it.direct.as_secs_f64()))
}

fn first_bytes<'a>(all: impl IntoIterator<Item = &'a Duration>) -> Spread {
    Spread::of(all.into_iter().map(|it| it.as_secs_f64() * 1e3))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "load {} before and {} after\n", self.load[0], self.load[1])?;
        writeln!(f, "| what | median (least..most) |\n| --- | --- |")?;
        for (name, spread) in self.rows().into_iter().filter(|(_, spread)| !spread.is_empty()) {
            writeln!(f, "| {name} | {spread} |")?;
        }
        for security in ["plain", "tls"] {
            if let Some(cpu) = self.pieces_cpu(security) {
                writeln!(f, "| pieces into a store, {security}: CPU-s/GiB of both nodes | {cpu:.2} |")?;
            }
        }
        Ok(())
    }
}
