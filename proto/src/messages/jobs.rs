//! What gateways tell each other of preheat jobs.

use bytes::Bytes;

/// Asks a gateway for its preheat jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobsRequest;

/// What has changed among a gateway's preheat jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobsNews {
    /// Jobs that are new or are not as they were, as JSON: at most [`JobsNews::MAX`], of at most
    /// [`JobsNews::MAX_JOB`] bytes each.
    pub jobs: Vec<Bytes>,
    /// Numbers of jobs that the gateway has no more.
    pub gone: Vec<u64>,
}

impl JobsNews {
    /// The most jobs in one message.
    pub const MAX: usize = 64;
    /// The most bytes of one of them.
    pub const MAX_JOB: usize = 64 << 10;
}

/// Asks a gateway how one of its preheat jobs is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRequest {
    /// Its number.
    pub id: u64,
    /// Who wants it to end, if anybody does.
    pub cancelled_by: Option<String>,
}

/// How the job is by now, as JSON; `None` where the gateway has no such job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobReply(pub Option<Bytes>);

impl JobReply {
    /// The most bytes of it.
    pub const MAX_JOB: usize = 8 << 20;
}
