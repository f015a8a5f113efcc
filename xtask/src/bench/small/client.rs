//! The client of many small downloads: so many at once, each over a connection that is kept.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::task::spawn_blocking;

use crate::bench::download::{PATIENCE, Place, read_head};

/// Downloads everything from one server, `at_once` at the same time, and returns how long that took.
pub(super) async fn download(places: Vec<Place>, at_once: usize) -> Result<Duration> {
    let (places, next, start) = (Arc::new(places), Arc::new(AtomicUsize::new(0)), Instant::now());
    let streams = (0..at_once).map(|_| {
        let (places, next) = (places.clone(), next.clone());
        spawn_blocking(move || one_after_the_other(&places, &next))
    });
    for done in try_join_all(streams).await? {
        done?;
    }
    Ok(start.elapsed())
}

/// Downloads over one connection whatever no other has begun with.
fn one_after_the_other(places: &[Place], next: &AtomicUsize) -> Result<()> {
    let server = places.first().context("nothing to download")?.server;
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = BufReader::new(stream);
    while let Some(Place { server, path }) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n");
        let mut get = || {
            stream.get_mut().write_all(request.as_bytes())?;
            let n_expected = read_head(&mut stream)?;
            let n_bytes = io::copy(&mut stream.by_ref().take(n_expected), &mut io::sink())?;
            ensure!(n_bytes == n_expected, "{n_bytes} of {n_expected} bytes came");
            Ok(())
        };
        get().with_context(|| format!("GET http://{server}{path}"))?;
    }
    Ok(())
}
