//! `preheat`: asks for a job, follows it to its end, and looks at those that there are.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cli::{Ask, Format, Jobs as About, Preheat};
use crate::fault::{Exit, Fault};
use crate::fleet::read;
use crate::gateway::Gateway;
use crate::job::{Job, Jobs, body};
use crate::progress::Progress;
use crate::run::Outcome;

/// Where jobs are.
const JOBS: &str = "/api/v1/preheat";
/// How often a job is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a gateway that does not answer is waited for: another one may take the job over.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many pages of jobs are read; a gateway keeps fewer.
const MAX_PAGES: usize = 20;
/// Jobs on a page, the most that the gateway allows.
const PER_PAGE: usize = 100;

/// Does what was said.
///
/// # Errors
/// Where it cannot be done.
pub async fn preheat(said: &Preheat, gateway: &Gateway) -> Result<Outcome, Fault> {
    match &said.command {
        None => ask(&said.ask, gateway).await,
        Some(About::List { state, shown }) => {
            let jobs = list(gateway, state.as_deref()).await?;
            Outcome::of(shown.output, &jobs, Exit::Done, |it| Ok(read::<Jobs>(it)?.list()))
        }
        Some(About::Show(job)) => {
            let shown = gateway.get(&format!("{JOBS}/{}", job.id)).await?;
            tell(job.shown.output, &shown)
        }
        Some(About::Cancel(job)) => {
            let cancelled = gateway.ask(Method::DELETE, &format!("{JOBS}/{}", job.id), None).await?.document;
            // It was to fail.
            Outcome::of(job.shown.output, &cancelled, Exit::Done, |it| Ok(read::<Job>(it)?.show()))
        }
    }
}

/// All jobs, the latest first, as one document.
///
/// # Errors
/// Where a page is not to be had.
pub async fn list(gateway: &Gateway, state: Option<&str>) -> Result<Value, Fault> {
    let (mut jobs, mut total) = (Vec::new(), Value::Null);
    for page in 1..=MAX_PAGES {
        let state = state.map(|it| format!("&state={}", crate::gateway::segment(it))).unwrap_or_default();
        let path = format!("{JOBS}?page={page}&per_page={PER_PAGE}{state}");
        let mut document = gateway.get(&path).await?;
        let Some(Value::Array(more)) = document.get_mut("jobs").map(Value::take) else { break };
        let is_last = more.len() < PER_PAGE;
        jobs.extend(more);
        total = document.get("total").cloned().unwrap_or_default();
        if is_last {
            break;
        }
    }
    Ok(json!({ "jobs": jobs, "total": total }))
}

async fn ask(ask: &Ask, gateway: &Gateway) -> Result<Outcome, Fault> {
    let asked = gateway.ask(Method::POST, JOBS, Some(&body(ask))).await?.document;
    if !ask.wait {
        return Outcome::of(ask.shown.output, &asked, Exit::Done, |it| {
            let id = read::<Job>(it)?.id;
            Ok(format!("job {id} was taken in; `shoalctl preheat show {id}` says how far it is\n"))
        });
    }
    let id = read::<Job>(&asked)?.id;
    let ended = follow(gateway, id).await?;
    tell(ask.shown.output, &ended)
}

/// A job, with its state for the exit code.
fn tell(format: Format, document: &Value) -> Result<Outcome, Fault> {
    let job: Job = read(document)?;
    Outcome::of(format, document, job.exit().unwrap_or(Exit::Done), |_| Ok(job.show()))
}

/// Looks at a job until it has ended. It has a time limit of its own, which is never longer than half an hour.
async fn follow(gateway: &Gateway, id: u64) -> Result<Value, Fault> {
    let mut progress = Progress::new();
    let mut heard = Instant::now();
    loop {
        match gateway.get(&format!("{JOBS}/{id}")).await {
            Ok(document) => {
                heard = Instant::now();
                let job: Job = read(&document)?;
                let held = job.progress();
                progress.tell(held.bytes_held, held.bytes, &job.line());
                if job.exit().is_some() {
                    return Ok(document);
                }
            }
            Err(fault) if fault.exit == Exit::Unreachable && heard.elapsed() < PATIENCE => {}
            Err(fault) => {
                let fix = format!("the job goes on: `shoalctl preheat show {id}`. {}", fault.fix);
                return Err(Fault { fix, ..fault });
            }
        }
        sleep(LOOK_EVERY).await;
    }
}
