//! Asking a gateway for preheat jobs, as a person does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::image::Image;
use crate::shoal::Service;
use crate::wait;

/// How long a job of the lab may take.
const DEADLINE: Duration = Duration::from_secs(240);

impl Fleet {
    /// What asks for an image to be on all nodes.
    pub fn to_all_peers(&self, image: &Image) -> Value {
        json!({ "image": self.registry.reference(image), "scope": "all_peers" })
    }
}

impl Service {
    /// Asks for a job; returns its number.
    pub async fn preheat(&self, body: &Value) -> Result<u64> {
        let (status, job) = self.call_preheat(Method::POST, "", body.to_string()).await?;
        ensure!(status == StatusCode::ACCEPTED, "the gateway answered {status}: {job}");
        job["id"].as_u64().context("a job without a number")
    }

    /// A job as it is now.
    pub async fn job(&self, id: u64) -> Result<Value> {
        let (status, job) = self.call_preheat(Method::GET, &format!("/{id}"), String::new()).await?;
        ensure!(status == StatusCode::OK, "the gateway answered {status}: {job}");
        Ok(job)
    }

    /// A job at its end.
    pub async fn ended_job(&self, id: u64) -> Result<Value> {
        self.job_when(id, |it| it["state"] != "PENDING").await
    }

    /// A job on its way: something of it is at a node, and not all.
    pub async fn job_under_way(&self, id: u64) -> Result<Value> {
        let some = |it: &Value| it["progress"]["bytesHeld"].as_u64().is_some_and(|it| it > 2 << 20);
        let job = self.job_when(id, |it| some(it) || it["state"] != "PENDING").await?;
        ensure!(job["state"] == "PENDING", "it is over already: {job}");
        Ok(job)
    }

    /// A job once it is like that.
    pub async fn job_when(&self, id: u64, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let last = std::cell::RefCell::new(Value::Null);
        let seen = wait::until("job", DEADLINE, async || {
            // A gateway that is just starting does not answer.
            let job = self.job(id).await.ok()?;
            let found = is_so(&job).then(|| job.clone());
            last.replace(job);
            found
        });
        seen.await.with_context(|| format!("job {id} was last {}", last.borrow()))
    }

    /// Calls the preheat API.
    pub async fn call_preheat(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Value)> {
        self.manage(method, &format!("/preheat{path}"), body).await
    }
}
