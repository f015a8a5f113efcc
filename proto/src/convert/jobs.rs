//! What gateways tell each other of preheat jobs.

use super::{Checked, MAX_ITEMS, Wire, capped, document, each, name};
use crate::messages::{JobReply, JobRequest, JobsNews, JobsRequest};
use crate::wire;

impl Wire for JobsRequest {
    type Generated = wire::JobsRequest;

    fn into_wire(self) -> wire::JobsRequest {
        wire::JobsRequest {}
    }

    fn from_wire(_: wire::JobsRequest) -> Checked<Self> {
        Ok(Self)
    }
}

impl Wire for JobsNews {
    type Generated = wire::JobsNews;

    fn into_wire(self) -> wire::JobsNews {
        wire::JobsNews { jobs: self.jobs, gone: self.gone }
    }

    fn from_wire(it: wire::JobsNews) -> Checked<Self> {
        Ok(Self {
            jobs: each("jobs", it.jobs, Self::MAX, |job| document("job", job, Self::MAX_JOB))?,
            gone: capped("gone", it.gone, MAX_ITEMS)?,
        })
    }
}

impl Wire for JobRequest {
    type Generated = wire::JobRequest;

    fn into_wire(self) -> wire::JobRequest {
        wire::JobRequest { id: self.id, cancelled_by: self.cancelled_by.unwrap_or_default() }
    }

    fn from_wire(it: wire::JobRequest) -> Checked<Self> {
        let cancelled_by = Some(it.cancelled_by).filter(|by| !by.is_empty());
        let cancelled_by = cancelled_by.map(|by| name("cancelled_by", by)).transpose()?;
        Ok(Self { id: it.id, cancelled_by })
    }
}

impl Wire for JobReply {
    type Generated = wire::JobReply;

    fn into_wire(self) -> wire::JobReply {
        wire::JobReply { job: self.0.unwrap_or_default() }
    }

    fn from_wire(it: wire::JobReply) -> Checked<Self> {
        let job = document("job", it.job, Self::MAX_JOB)?;
        Ok(Self(Some(job).filter(|it| !it.is_empty())))
    }
}
