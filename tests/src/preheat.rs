//! Asking a fleet's gateway for preheat jobs, as a person does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::fleet::Fleet;
use crate::image::Image;
use crate::wait;

/// How long a job of the lab may take.
const DEADLINE: Duration = Duration::from_secs(240);

impl Fleet {
    /// An image of the fleet's registry as jobs name it.
    pub fn named(&self, image: &Image) -> String {
        self.registry.reference(image)
    }

    /// Asks for a job; returns its number.
    pub async fn preheat(&self, body: &Value) -> Result<u64> {
        self.preheat_at(0, body).await
    }

    /// Asks the gateway of this number for a job; returns the job's number.
    pub async fn preheat_at(&self, gateway: usize, body: &Value) -> Result<u64> {
        let (status, job) = self.call_preheat_at(gateway, Method::POST, "", body.to_string()).await?;
        ensure!(status == StatusCode::ACCEPTED, "the gateway answered {status}: {job}");
        job["id"].as_u64().context("a job without a number")
    }

    /// A job as it is now.
    pub async fn job(&self, id: u64) -> Result<Value> {
        self.job_at(0, id).await
    }

    /// A job as it is now, as the gateway of this number says.
    pub async fn job_at(&self, gateway: usize, id: u64) -> Result<Value> {
        let path = format!("/{id}");
        let (status, job) = self.call_preheat_at(gateway, Method::GET, &path, String::new()).await?;
        ensure!(status == StatusCode::OK, "the gateway answered {status}: {job}");
        Ok(job)
    }

    /// A job at its end.
    pub async fn ended_job(&self, id: u64) -> Result<Value> {
        self.ended_job_at(0, id).await
    }

    /// A job at its end, as the gateway of this number says.
    pub async fn ended_job_at(&self, gateway: usize, id: u64) -> Result<Value> {
        self.job_when_at(gateway, id, |it| it["state"] != "PENDING").await
    }

    /// A job once it is like that.
    pub async fn job_when(&self, id: u64, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        self.job_when_at(0, id, is_so).await
    }

    /// A job once it is like that, as the gateway of this number says.
    pub async fn job_when_at(
        &self,
        gateway: usize,
        id: u64,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let last = std::cell::RefCell::new(Value::Null);
        let seen = wait::until("job", DEADLINE, async || {
            // A gateway that is just starting does not answer.
            let job = self.job_at(gateway, id).await.ok()?;
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
        self.call_preheat_at(0, method, path, body).await
    }

    /// The same at the gateway of this number.
    pub async fn call_preheat_at(
        &self,
        gateway: usize,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Value)> {
        self.gateways()[gateway].manage(method, &format!("/preheat{path}"), body).await
    }
}
