//! A job as it is shown, and kept once it has ended. It holds no secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shoal_proto::BlobAtNode;
use utoipa::ToSchema;

use super::branch::Branch;
use super::choice;
use super::job::{Job, Layer};
use super::request::{Asked, Request};
use super::target::{Part, Target};
use crate::timestamp::Timestamp;

/// The most rows of either kind, of all regions together. Harbor writes each into a log.
const MAX_ROWS: usize = 1000;

/// A job as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PreheatJob)]
pub struct JobView {
    /// Its number; no other job ever has the same.
    pub id: u64,
    /// Whether it has ended, and how.
    pub state: State,
    /// What it is at: queued, resolving, assigning, storing, ending, ended.
    pub doing: String,
    /// Who asked for it.
    pub asked_by: String,
    /// Who had it end, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// Whether a credential came with it. It is not kept.
    pub has_credential: bool,
    /// What was asked for.
    pub request: Asked,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When this was so.
    #[schema(value_type = String, format = DateTime)]
    pub updated: Timestamp,
    /// What is to be said about the whole.
    pub errors: Vec<String>,
    /// Who holds what, in the gateway's own region.
    #[serde(flatten)]
    pub held: Held,
    /// What the other regions do that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionView>,
}

/// A job's part in another region, as that region tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PreheatRegion)]
pub struct RegionView {
    /// The region's name.
    pub name: String,
    /// Whether it has ended, and how.
    pub state: State,
    /// What it is at: waiting, absent, told, resolving, assigning, storing, cut off, ended.
    pub doing: String,
    /// What is to be said about it.
    pub errors: Vec<String>,
    /// Who holds what there.
    #[serde(flatten)]
    pub held: Held,
}

/// Who holds what, in one region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PreheatHeld)]
pub struct Held {
    /// How far it is.
    pub progress: Progress,
    /// The image's blobs.
    pub layers: Vec<LayerView>,
    /// Who holds which blob.
    pub success: Vec<Row>,
    /// Who does not, and why.
    pub failure: Vec<Row>,
    /// So many rows are not among them.
    pub rows_left_out: usize,
}

/// Whether a job has ended, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = PreheatState)]
pub enum State {
    /// It has not.
    Pending,
    /// At least one node holds all that it should.
    Success,
    /// None does, or the job was cancelled.
    Failure,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Success, Self::Failure];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
        }
    }
}

/// How far a job is. Sizes are in bytes, as the manifests state them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PreheatProgress)]
pub struct Progress {
    /// Of all blobs at all nodes together.
    pub bytes: u64,
    /// What nodes hold of that.
    pub bytes_held: u64,
    /// Nodes that shall hold something.
    pub nodes: usize,
    /// Those that hold all of it.
    pub nodes_done: usize,
    /// Those that will not.
    pub nodes_failed: usize,
}

/// A blob of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PreheatLayer)]
pub struct LayerView {
    /// Its digest.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// So many nodes hold it.
    pub nodes_done: usize,
    /// So many will not.
    pub nodes_failed: usize,
}

/// A blob at a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PreheatRow)]
pub struct Row {
    /// Where the registry has the blob.
    pub url: String,
    /// The node's name.
    pub hostname: String,
    /// Its address.
    pub ip: String,
    /// Why it does not hold the blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl JobView {
    /// A job that has just been asked for.
    pub(super) fn new(id: u64, asked_by: String, request: &Request, now: Timestamp) -> Self {
        Self {
            id,
            state: State::Pending,
            doing: "queued".to_owned(),
            asked_by,
            cancelled_by: None,
            has_credential: request.authorization.is_some(),
            request: request.to_asked(),
            created: now,
            updated: now,
            errors: Vec::new(),
            held: Held::default(),
            regions: Vec::new(),
        }
    }

    /// The same as it is by now.
    pub(super) fn with(&self, job: &Job, request: &Request, now: Timestamp) -> Self {
        let (url, max_rows) = (|layer| url(job, request, layer), max_rows(job));
        Self {
            held: Held::of(job, max_rows, url),
            regions: job
                .branches()
                .iter()
                .map(|it| RegionView::of(it, Held::told(it, job, max_rows, url)))
                .collect(),
            ..self.at(job, now)
        }
    }

    /// The same as it is by now, without what became of each blob.
    pub(super) fn brief_with(&self, job: &Job, now: Timestamp) -> Self {
        let rows_left_out = parts(job).filter(|(_, _, part)| part.end.is_some()).count();
        let held = Held { progress: progress(job), rows_left_out, ..Held::default() };
        let regions = job.branches().iter().map(RegionView::brief_of).collect();
        Self { held, regions, ..self.at(job, now) }
    }

    /// The same without what became of each blob.
    pub(super) fn brief(&self) -> Self {
        Self {
            id: self.id,
            state: self.state,
            doing: self.doing.clone(),
            asked_by: self.asked_by.clone(),
            cancelled_by: self.cancelled_by.clone(),
            has_credential: self.has_credential,
            request: self.request.clone(),
            created: self.created,
            updated: self.updated,
            errors: self.errors.clone(),
            held: self.held.brief(),
            regions: self.regions.iter().map(RegionView::brief).collect(),
        }
    }

    fn at(&self, job: &Job, now: Timestamp) -> Self {
        let verdict = job.verdict();
        let state = match verdict.map(|it| it.succeeded) {
            None => State::Pending,
            Some(true) => State::Success,
            Some(false) => State::Failure,
        };
        Self {
            state,
            doing: job.doing().to_owned(),
            updated: now,
            cancelled_by: verdict.and_then(|it| it.cancelled_by.clone()),
            errors: verdict.map(|it| it.errors.clone()).unwrap_or_default(),
            ..self.brief()
        }
    }

    /// The same before its end is certain: whoever looks sees none.
    pub(super) fn unended(self) -> Self {
        if self.state == State::Pending {
            return self;
        }
        let (doing, errors) = ("ending".to_owned(), Vec::new());
        Self { state: State::Pending, doing, cancelled_by: None, errors, ..self }
    }

    /// The same with a word about its errors and regions in place of all of them, for those who cannot take that much in.
    pub(super) fn shortened(&self) -> Self {
        let n_regions = self.regions.len();
        let errors = vec![format!(
            "{} errors and {n_regions} regions are shown by its own gateway only",
            self.errors.len()
        )];
        Self { errors, regions: Vec::new(), ..self.brief() }
    }

    /// The same, to begin anew.
    pub(super) fn anew(&self) -> Self {
        let (held, regions) = (Held::default(), Vec::new());
        Self { doing: "queued".to_owned(), held, regions, ..self.brief() }
    }

    /// The same, ended by somebody before it could do anything.
    pub(super) fn cancelled(&self, by: &str, now: Timestamp) -> Self {
        Self { cancelled_by: Some(by.to_owned()), ..self.failed(format!("cancelled by {by}"), now) }
    }

    /// The same, ended before it could do anything.
    pub(super) fn failed(&self, why: String, now: Timestamp) -> Self {
        let (state, doing) = (State::Failure, "ended".to_owned());
        Self { state, doing, updated: now, errors: vec![why], ..self.clone() }
    }
}

impl RegionView {
    /// The same without what was done where.
    fn brief(&self) -> Self {
        Self {
            name: self.name.clone(),
            state: self.state,
            doing: self.doing.clone(),
            errors: self.errors.clone(),
            held: self.held.brief(),
        }
    }

    /// Without what was done where.
    fn brief_of(branch: &Branch) -> Self {
        let mut held = Held::told_counts(branch);
        held.rows_left_out = held.rows_left_out.saturating_add(branch.rows().len());
        Self::of(branch, held)
    }

    fn of(branch: &Branch, held: Held) -> Self {
        let state = match (branch.is_over(), branch.is_of_use()) {
            (false, _) => State::Pending,
            (true, true) => State::Success,
            (true, false) => State::Failure,
        };
        Self {
            name: branch.region.to_string(),
            state,
            doing: branch.doing().to_owned(),
            errors: branch.errors(),
            held,
        }
    }
}

impl Held {
    /// What the nodes of this region hold, without rows.
    pub(super) fn counts(job: &Job) -> Self {
        Self { progress: progress(job), layers: layers(job), ..Self::default() }
    }

    fn of(job: &Job, max_rows: usize, url: impl Fn(usize) -> Option<String>) -> Self {
        let mut it = Self::counts(job);
        for (_, target, part) in parts(job) {
            let Some(end) = &part.end else { continue };
            let row = url(part.layer).map(|url| Row {
                url,
                hostname: target.node.id.to_string(),
                ip: choice::ip(&target.node).map(|it| it.to_string()).unwrap_or_default(),
                description: end.as_ref().err().map(|it| it.to_string()),
            });
            it.add(row, max_rows);
        }
        it
    }

    /// What another region's nodes hold, without blobs and rows.
    fn told_counts(branch: &Branch) -> Self {
        let Some(told) = branch.progress() else { return Self::default() };
        let progress = Progress {
            bytes: told.bytes,
            bytes_held: told.bytes_held,
            nodes: count(told.nodes),
            nodes_done: count(told.nodes_done),
            nodes_failed: count(told.nodes_failed),
        };
        Self { progress, rows_left_out: count(told.rows_left_out), ..Self::default() }
    }

    fn told(branch: &Branch, job: &Job, max_rows: usize, url: impl Fn(usize) -> Option<String>) -> Self {
        let Some(told) = branch.progress() else { return Self::default() };
        let layer = |(layer, [done, failed]): (&Layer, &[u64; 2])| LayerView {
            digest: layer.digest.to_string(),
            size: layer.size,
            nodes_done: count(*done),
            nodes_failed: count(*failed),
        };
        let layers = job.layers().iter().zip(&told.blobs).map(layer).collect();
        let mut it = Self { layers, ..Self::told_counts(branch) };
        for BlobAtNode { blob, node, ip, failed } in branch.rows().iter().cloned() {
            it.add(url(blob).map(|url| Row { url, hostname: node, ip, description: failed }), max_rows);
        }
        it
    }

    fn add(&mut self, row: Option<Row>, max_rows: usize) {
        let Some(row) = row else { return };
        let rows = if row.description.is_none() { &mut self.success } else { &mut self.failure };
        if rows.len() < max_rows {
            rows.push(row);
        } else {
            self.rows_left_out = self.rows_left_out.saturating_add(1);
        }
    }

    fn brief(&self) -> Self {
        let n_rows = self.success.len().saturating_add(self.failure.len());
        let rows_left_out = self.rows_left_out.saturating_add(n_rows);
        Self { progress: self.progress, rows_left_out, ..Self::default() }
    }
}

fn count(it: u64) -> usize {
    usize::try_from(it).unwrap_or(usize::MAX)
}

/// The most rows of either kind that are shown of one region.
pub(super) fn max_rows(job: &Job) -> usize {
    MAX_ROWS / job.branches().len().saturating_add(1)
}

/// Where the registry has a blob.
fn url(job: &Job, request: &Request, layer: usize) -> Option<String> {
    let (image, digest) = (&request.image, job.layers().get(layer)?.digest);
    Some(format!("https://{}/v2/{}/blobs/{digest}", image.registry, image.repository))
}

/// Every blob at every target, with their numbers.
pub(super) fn parts(job: &Job) -> impl Iterator<Item = ((usize, usize), &Target, &Part)> {
    let targets = job.targets().iter().enumerate();
    targets.flat_map(|(of, target)| {
        target.parts.iter().enumerate().map(move |(number, part)| ((of, number), target, part))
    })
}

fn layers(job: &Job) -> Vec<LayerView> {
    let mut ends: BTreeMap<usize, [usize; 2]> = BTreeMap::new();
    for (_, _, part) in parts(job) {
        let [done, failed] = ends.entry(part.layer).or_default();
        match &part.end {
            Some(Ok(())) => *done += 1,
            Some(Err(_)) => *failed += 1,
            None => {}
        }
    }
    let layers = job.layers().iter().enumerate();
    layers
        .map(|(number, layer)| {
            let [nodes_done, nodes_failed] = ends.get(&number).copied().unwrap_or_default();
            LayerView { digest: layer.digest.to_string(), size: layer.size, nodes_done, nodes_failed }
        })
        .collect()
}

pub(super) fn progress(job: &Job) -> Progress {
    let size = |part: &Part| job.layers().get(part.layer).map_or(0, |it| it.size);
    let (nodes, mut it) = (job.targets(), Progress::default());
    for (_, _, part) in parts(job) {
        it.bytes = it.bytes.saturating_add(size(part));
        let held = if part.end == Some(Ok(())) { size(part) } else { part.held };
        it.bytes_held = it.bytes_held.saturating_add(held);
    }
    it.nodes = nodes.len();
    it.nodes_done = nodes.iter().filter(|it| it.is_whole()).count();
    it.nodes_failed = nodes.iter().filter(|it| it.is_over() && !it.is_whole()).count();
    it
}

#[cfg(test)]
mod tests {
    use shoal_model::{Node, NodeId, Place, Role, Tick};
    use shoal_proto::Stored;

    use super::super::job::{Event, Layer, Limits};
    use super::super::target::Assignment;
    use super::*;

    /// A job of two blobs of 10 bytes at one node, which holds the first and cannot get the second.
    fn half_done() -> (Job, Request) {
        let asked = Asked { image: "a.example/b:1".to_owned(), ..Asked::default() };
        let request = Request::new(asked, |it| it.parse().ok()).unwrap();
        let limits = Limits { targets: 1, timeout: request.timeout };
        let layers = [1, 2].map(|n| Layer { digest: shoal_model::Digest::from_sha256([n; 32]), size: 10 });
        let node = Node {
            id: NodeId::new("n"),
            address: "10.0.0.1:1".into(),
            role: Role::Sidecar,
            place: Place::default(),
        };
        let ends = [Some(Ok(())), Some(Err("the disk is full".to_owned()))];
        let ends = ends.into_iter().enumerate().map(|(index, end)| Stored { index, held: 10, end });
        let mut job = Job::new(Tick(0), limits, Default::default(), Vec::new());
        for event in [
            Event::Tick,
            Event::Resolved(Ok(layers.into())),
            Event::Assigned(Ok(vec![Assignment { node, layers: vec![0, 1] }])),
            Event::Told { target: 0, stored: ends.collect(), is_excused: false },
            Event::Cancelled("ann".to_owned()),
        ] {
            job.on_event(Tick(0), event, &mut Vec::new());
        }
        (job, request)
    }

    #[test]
    fn an_end_is_seen_once_it_is_certain() {
        let (job, request) = half_done();
        let now = Timestamp::now();
        let ended = JobView::new(7, "ann".to_owned(), &request, now).with(&job, &request, now);
        assert_eq!((ended.state, ended.cancelled_by.as_deref()), (State::Failure, Some("ann")));
        let seen = ended.clone().unended();
        assert_eq!(
            (seen.state, seen.doing.as_str(), seen.cancelled_by.as_deref()),
            (State::Pending, "ending", None)
        );
        assert_eq!((seen.errors.len(), seen.held), (0, ended.held));
    }

    #[test]
    fn a_brief_view_says_all_but_what_became_of_each_blob() {
        let (job, request) = half_done();
        let now = Timestamp::of_millis(1);
        let asked_for = JobView::new(7, "ann".to_owned(), &request, now);
        let full = asked_for.with(&job, &request, now);
        let Held { progress, layers, success, failure, .. } = &full.held;
        assert_eq!((layers.len(), success.len(), failure.len()), (2, 1, 1));
        assert_eq!(failure[0].description.as_deref(), Some("the disk is full"));
        let held = Held { progress: *progress, rows_left_out: 2, ..Held::default() };
        let brief = JobView { held, ..full.clone() };
        assert_eq!(asked_for.brief_with(&job, now), brief);
        assert_eq!(full.brief(), brief);
    }
}
