//! The audit log: who asked for what and what was decided, one JSON object a line.
//!
//! Whoever decides hands an [`Event`] over and goes on; one task writes. It takes whatever has come since it
//! last wrote, so that a busy gateway writes few, long batches and an idle one writes each line at once. A
//! batch is in the system's hands when its write returns: nothing waits in a buffer for a flush.
//!
//! The log must not stop a pull, and nothing may be missing without a trace. So a full queue holds the
//! deciders up for a second, or as long as they can wait; what finds no place then, and what the disk does not
//! take, is counted. From then on nobody is held up until the queue has drained, and the service's own log tells
//! when losses begin and when they end.
//!
//! Knows nothing of: how anything is decided, credentials, registries beyond their names.

pub(crate) mod api;
mod event;
mod file;
mod tail;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use shoal_model::ByteSize;
use shoal_ops::Context;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::Instant;

pub use event::{
    Authorization, Call, Caller, Certificate, Credential, Event, Outcome, Read, Reason, Rejection, Requested,
    TokenShown,
};

use crate::timestamp::Timestamp;
use file::{RotatingFile, Sink};

/// How many events may wait for the disk; each takes some hundred bytes.
const QUEUE: usize = 8192;
/// How many lines are written at once.
const BATCH: usize = 1024;
/// How long a full queue holds a decider up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where audit lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditSettings {
    /// Nowhere.
    Off,
    /// Standard output.
    Output,
    /// A file.
    File {
        /// Which; its predecessors are named after it.
        path: PathBuf,
        /// The largest that it gets before it is put aside.
        max_size: ByteSize,
        /// How many predecessors are kept.
        n_kept: u32,
    },
}

/// A handle on the audit log; clones are of the same log.
#[derive(Clone)]
pub struct Audit(Option<Queue>);

#[derive(Clone)]
struct Queue {
    lines: mpsc::Sender<Line>,
    losses: Arc<Losses>,
}

#[derive(Serialize)]
struct Line {
    time: Timestamp,
    #[serde(flatten)]
    event: Event,
}

impl Audit {
    /// Starts the log as a task of the process. It ends with the last handle, so that what is decided while
    /// the process drains is written, too.
    pub fn start(settings: AuditSettings, ctx: &Context) -> Self {
        let sink = match settings {
            AuditSettings::Off => return Self(None),
            AuditSettings::Output => Sink::Output,
            AuditSettings::File { path, max_size, n_kept } => {
                Sink::File(RotatingFile::new(path, max_size.0, n_kept))
            }
        };
        let n_lost = Counter::default();
        ctx.metrics.register(|registry| {
            registry.register(
                "gateway_audit_dropped",
                "Audit lines that are lost because the queue was full or the disk failed",
                n_lost.clone(),
            );
        });
        let (lines, waiting) = mpsc::channel(QUEUE);
        ctx.tasks.spawn("audit", write(waiting, sink, Losses::new(n_lost.clone())));
        Self(Some(Queue { lines, losses: Arc::new(Losses::new(n_lost)) }))
    }

    /// Hands an event to the log; waits a second at most.
    pub async fn record(&self, event: Event) {
        self.record_by(Instant::now() + PATIENCE, event).await;
    }

    /// The same for somebody who cannot wait beyond `deadline`.
    pub async fn record_by(&self, deadline: Instant, event: Event) {
        let Some(Queue { lines, losses }) = &self.0 else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = if losses.is_losing() { Duration::ZERO } else { left.min(PATIENCE) };
        match lines.send_timeout(Line { time: Timestamp::now(), event }, patience).await {
            // This line alone waits.
            Ok(()) if lines.max_capacity() - lines.capacity() <= 1 => losses.end(),
            Ok(()) => {}
            Err(error) => losses.add(1, &error),
        }
    }
}

/// Writes lines until nobody is left who could send one.
async fn write(mut waiting: mpsc::Receiver<Line>, mut sink: Sink, losses: Losses) -> Result<(), JoinError> {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let n_lines = batch.len() as u64;
        let lines = encode(batch.drain(..));
        let append = move || (sink.append(&lines), sink);
        let (res, returned) = tokio::task::spawn_blocking(append).await?;
        sink = returned;
        match res {
            Ok(()) => losses.end(),
            Err(error) => losses.add(n_lines, &error),
        }
    }
    Ok(())
}

#[expect(clippy::expect_used, reason = "input cannot reach it")]
fn encode(batch: impl Iterator<Item = Line>) -> Vec<u8> {
    let mut lines = Vec::new();
    for line in batch {
        serde_json::to_writer(&mut lines, &line).expect("an event has string keys, and memory takes all");
        lines.push(b'\n');
    }
    lines
}

/// Counts lost lines, and tells of a row of losses when it begins and when it ends.
struct Losses {
    n_lost: Counter,
    losing: AtomicBool,
}

impl Losses {
    const fn new(n_lost: Counter) -> Self {
        Self { n_lost, losing: AtomicBool::new(false) }
    }

    /// Whether lines are being lost.
    fn is_losing(&self) -> bool {
        self.losing.load(Ordering::Relaxed)
    }

    fn add(&self, n_lines: u64, error: &dyn fmt::Display) {
        self.n_lost.inc_by(n_lines);
        if !self.losing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "audit lines are being lost");
        }
    }

    fn end(&self) {
        if self.is_losing() && self.losing.swap(false, Ordering::Relaxed) {
            tracing::info!(n_lost = self.n_lost.get(), "audit lines are written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const GRACE: Duration = Duration::from_secs(10);

    fn event(status: u16) -> Event {
        Event::Management(Call {
            client: [127, 0, 0, 1].into(),
            token: None,
            method: http::Method::GET,
            route: "/api/v1/tokens".into(),
            subject: None,
            status,
        })
    }

    fn to_file(path: PathBuf) -> AuditSettings {
        AuditSettings::File { path, max_size: ByteSize(1 << 20), n_kept: 1 }
    }

    fn n_lost(ctx: &Context) -> u64 {
        let text = ctx.metrics.encode();
        let line = text.lines().find_map(|it| it.strip_prefix("shoal_gateway_audit_dropped_total "));
        line.unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn every_event_is_a_line_also_while_the_process_drains() {
        let (dir, ctx) = (tempfile::tempdir().unwrap(), Context::new("gateway", "0"));
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::start(to_file(path.clone()), &ctx);
        let (last, stopping) = (audit.clone(), ctx.tasks.stopping());
        ctx.tasks.spawn_infallible("last", async move {
            stopping.cancelled().await;
            last.record(event(3000)).await;
        });
        for status in 0..3000 {
            audit.record(event(status)).await;
        }
        drop(audit);
        let ended = ctx.tasks.shut_down(GRACE).await;
        assert!(ended.failure.is_none() && ended.cut.is_empty(), "{ended:?}");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        assert_eq!(
            lines.iter().map(|it| it["status"].as_u64().unwrap()).collect::<Vec<_>>(),
            Vec::from_iter(0..=3000)
        );
        assert_eq!(lines[0]["event"], "management");
        assert!(lines[0]["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!(n_lost(&ctx), 0);
    }

    #[tokio::test]
    async fn what_the_disk_does_not_take_is_counted() {
        let (dir, ctx) = (tempfile::tempdir().unwrap(), Context::new("gateway", "0"));
        let audit = Audit::start(to_file(dir.path().join("missing/audit.jsonl")), &ctx);
        for status in 0..10 {
            audit.record(event(status)).await;
        }
        drop(audit);
        assert!(ctx.tasks.shut_down(GRACE).await.failure.is_none());
        assert_eq!(n_lost(&ctx), 10);
    }

    /// A log whose queue has this many places, that which comes out of it, and what it lost.
    fn queue(n_places: usize) -> (Audit, mpsc::Receiver<Line>, Arc<Losses>) {
        let (lines, waiting) = mpsc::channel(n_places);
        let losses = Arc::new(Losses::new(Counter::default()));
        (Audit(Some(Queue { lines, losses: losses.clone() })), waiting, losses)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_holds_up_once_until_it_has_drained() {
        let (audit, mut waiting, losses) = queue(3);
        let start = Instant::now();
        for status in 0..4 {
            audit.record(event(status)).await;
        }
        assert_eq!((start.elapsed(), losses.n_lost.get()), (PATIENCE, 1));
        // A queue that is full again and again, because the disk is slow, holds nobody up.
        for n_lost in 2..10 {
            assert!(waiting.recv().await.is_some());
            audit.record(event(4)).await;
            audit.record(event(5)).await;
            assert_eq!((start.elapsed(), losses.n_lost.get()), (PATIENCE, n_lost));
        }
        for _ in 0..3 {
            assert!(waiting.recv().await.is_some());
        }
        for status in 0..4 {
            audit.record(event(status)).await;
        }
        assert_eq!((start.elapsed(), losses.n_lost.get()), (2 * PATIENCE, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_held_up_beyond_their_deadline() {
        for (left, expected) in
            [(Duration::ZERO, Duration::ZERO), (PATIENCE / 4, PATIENCE / 4), (2 * PATIENCE, PATIENCE)]
        {
            let (audit, _waiting, losses) = queue(1);
            let start = Instant::now();
            audit.record_by(start + left, event(1)).await;
            audit.record_by(start + left, event(2)).await;
            assert_eq!((start.elapsed(), losses.n_lost.get()), (expected, 1), "{left:?}");
        }
    }

    #[tokio::test]
    async fn a_log_that_is_off_takes_everything() {
        let ctx = Context::new("gateway", "0");
        Audit::start(AuditSettings::Off, &ctx).record(event(1)).await;
        assert!(!ctx.metrics.encode().contains("audit"));
    }
}
