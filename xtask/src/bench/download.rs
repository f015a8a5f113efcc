//! The client of all downloads: one request, and the bytes are dropped as they come.
//!
//! It is the same for the product and for the reference, and does as little as a client can, so that what it
//! costs hides little of what it measures.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use nix::sched::CpuSet;
use tokio::task::spawn_blocking;

use super::cpu;

/// How many bytes are taken at once.
const STEP: usize = 512 << 10;
/// How long the next byte is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Where something is to be had.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The server.
    pub(super) server: SocketAddr,
    /// Path and query there.
    pub(super) path: String,
}

/// How a download went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Download {
    /// From the connection attempt to the first byte of the body.
    pub(super) first_byte: Duration,
    /// To the last.
    pub(super) whole: Duration,
    /// Bytes of the body.
    pub(super) n_bytes: u64,
}

/// Downloads from all places at the same time; fails where one does not answer with all that it states.
pub(super) async fn all(places: impl IntoIterator<Item = Place>) -> Result<Vec<Download>> {
    all_on(&cpu::processors()?, places).await
}

/// The same by clients on these processors.
pub(super) async fn all_on(
    processors: &CpuSet,
    places: impl IntoIterator<Item = Place>,
) -> Result<Vec<Download>> {
    let downloads = places.into_iter().map(|place| {
        let processors = *processors;
        spawn_blocking(move || cpu::stay_on(&processors).and_then(|()| place.download()))
    });
    try_join_all(downloads).await?.into_iter().collect()
}

/// What came in all, in GiB.
pub(super) fn gib(downloads: &[Download]) -> f64 {
    downloads.iter().map(|it| it.n_bytes).sum::<u64>() as f64 / f64::from(1 << 30)
}

impl Place {
    fn download(&self) -> Result<Download> {
        self.get().with_context(|| format!("GET http://{}{}", self.server, self.path))
    }

    fn get(&self) -> Result<Download> {
        let start = Instant::now();
        let mut stream = TcpStream::connect(self.server)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.path, self.server)?;
        let mut stream = BufReader::new(stream);
        let n_expected = read_head(&mut stream)?;
        let first_byte = stream.fill_buf().map(|_| start.elapsed())?;
        let (mut buffer, mut n_bytes) = (vec![0; STEP], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                len => n_bytes += len as u64,
            }
        }
        ensure!(n_bytes == n_expected, "{n_bytes} of {n_expected} bytes came");
        Ok(Download { first_byte, whole: start.elapsed(), n_bytes })
    }
}

/// Reads an answer's head and returns the length of what follows.
pub(super) fn read_head(stream: &mut BufReader<TcpStream>) -> Result<u64> {
    let (mut status, mut length) = (String::new(), None);
    stream.read_line(&mut status)?;
    ensure!(status.starts_with("HTTP/1.1 200 "), "{}", status.trim_end());
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse()?);
        }
    }
    length.context("no content-length")
}
