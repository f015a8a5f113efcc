//! The life of a process between its settings and its exit code.
//!
//! Start, be ready, be told to stop or fail, drain, end: each leaves one line in the log. A part that fails
//! goes through the same drain as a signal, so that pulls in flight end properly. The drain has a limit, and a
//! second signal ends it at once. The admin listener goes last: those who watch over the process see it drain.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::admin;
use crate::context::Context;
use crate::serve::{Limits, Listener};
use crate::systemd;

/// Connections at once to the admin listener: a scraper, a prober and a curious human.
const ADMIN_CONNECTIONS: usize = 64;
/// How long they may take to hear the last answer.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// What the process itself needs to know of the settings.
pub(crate) struct Plan {
    /// Where the admin listener is.
    pub(crate) admin: SocketAddr,
    /// How long draining may take.
    pub(crate) grace: Duration,
}

/// Starts the service, and runs it until a signal's name comes over `signals` or a part of it fails.
///
/// # Errors
/// The reason why it did not start or went down; never for having been told to stop.
pub(crate) async fn run(
    ctx: Context,
    plan: Plan,
    start: impl Future<Output = anyhow::Result<()>>,
    mut signals: mpsc::Receiver<&'static str>,
) -> anyhow::Result<()> {
    let running = ctx.readiness.condition("running");
    let watched = ctx.apart();
    let started = async {
        let admin = Listener::bind("admin", plan.admin).await?;
        let router = admin::router(ctx.metrics.clone(), ctx.readiness.clone(), ctx.pages.clone());
        watched.serve(admin, router, Limits::new(ADMIN_CONNECTIONS));
        announce(&ctx);
        start.await?;
        running.set(true);
        tokio::select! {
            () = ctx.tasks.stopping().cancelled_owned() => {}
            () = watched.tasks.stopping().cancelled_owned() => {}
        }
        anyhow::Ok("a task failed")
    };
    let stopped = tokio::select! {
        res = started => res,
        Some(signal) = signals.recv() => Ok(signal),
    };
    let why = *stopped.as_ref().unwrap_or(&"the start failed");
    tracing::info!(why, "stopping");
    running.set(false);
    systemd::stopping();

    let began = Instant::now();
    let ended = tokio::select! {
        ended = ctx.tasks.shut_down(plan.grace) => ended,
        Some(signal) = signals.recv() => anyhow::bail!("stopping: cut short by a second signal, {signal}"),
    };
    tracing::info!(took = ?began.elapsed(), cut = ?ended.cut, "stopped");
    let unwatched = watched.tasks.shut_down(ADMIN_GRACE).await;
    stopped?;
    ended.failure.or(unwatched.failure).map_or(Ok(()), |failure| Err(failure.into()))
}

/// Tells log and service manager when the process is ready for the first time.
fn announce(ctx: &Context) {
    let (readiness, stopping) = (ctx.readiness.clone(), ctx.tasks.stopping());
    ctx.tasks.spawn("announce", async move {
        if stopping.run_until_cancelled(readiness.ready()).await.is_some() {
            tracing::info!("ready");
            systemd::ready();
        }
        anyhow::Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    fn plan() -> Plan {
        Plan { admin: ([127, 0, 0, 1], 0).into(), grace: Duration::from_secs(10) }
    }

    /// Runs a service and sends it `signals`, the first one as soon as it is ready.
    async fn outcome(
        ctx: Context,
        start: impl Future<Output = anyhow::Result<()>>,
        signals: &[&'static str],
    ) -> Result<(), String> {
        let (send, receive) = mpsc::channel(8);
        let readiness = ctx.readiness.clone();
        let operator = async {
            readiness.ready().await;
            for signal in signals {
                send.send(*signal).await.unwrap();
            }
            pending::<()>().await;
        };
        // The service declares its conditions before the operator looks at them.
        tokio::select! {
            biased;
            res = run(ctx, plan(), start, receive) => res.map_err(|it| format!("{it:#}")),
            () = operator => unreachable!("it waits for ever"),
        }
    }

    fn context() -> Context {
        Context::new("test", "1")
    }

    #[tokio::test]
    async fn a_signal_ends_it_well() {
        assert_eq!(outcome(context(), async { Ok(()) }, &["SIGTERM"]).await, Ok(()));
    }

    #[tokio::test]
    async fn a_failed_start_is_told() {
        let res = outcome(context(), async { Err(anyhow::anyhow!("no disk")) }, &[]).await;
        assert_eq!(res, Err("no disk".into()));
    }

    #[tokio::test]
    async fn a_failed_task_ends_the_process() {
        let ctx = context();
        let tasks = ctx.tasks.clone();
        let start = async move {
            tasks.spawn("weak", async { Err(anyhow::anyhow!("disk is gone")) });
            Ok(())
        };
        assert_eq!(outcome(ctx, start, &[]).await, Err("task weak: disk is gone".into()));
    }

    #[tokio::test]
    async fn a_second_signal_does_not_wait_for_the_drain() {
        let ctx = context();
        let tasks = ctx.tasks.clone();
        let start = async move {
            tasks.spawn("deaf", pending::<anyhow::Result<()>>());
            Ok(())
        };
        assert_eq!(
            outcome(ctx, start, &["SIGTERM", "SIGINT"]).await,
            Err("stopping: cut short by a second signal, SIGINT".into())
        );
    }

    /// The whole answer of the admin listener.
    async fn ask(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn the_drain_can_be_watched_to_its_end() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ctx = context();
        let (tasks, stopping) = (ctx.tasks.clone(), ctx.tasks.stopping());
        let (send, receive) = mpsc::channel(1);
        let start = async move {
            tasks.spawn("slow", async move {
                stopping.cancelled().await;
                let answer = ask(free, "/readyz").await?;
                anyhow::ensure!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("running"), answer);
                Ok(())
            });
            Ok(send.send("SIGTERM").await?)
        };
        let res = run(ctx, Plan { admin: free, ..plan() }, start, receive).await;
        assert!(res.is_ok(), "{res:?}");
        assert!(ask(free, "/healthz").await.is_err());
    }

    #[tokio::test]
    async fn a_start_that_hangs_can_be_stopped() {
        let (send, receive) = mpsc::channel(1);
        send.send("SIGINT").await.unwrap();
        let res = run(context(), plan(), pending(), receive).await;
        assert!(res.is_ok());
    }
}
