//! Preheat jobs, as the management API tells them and as they are printed.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::Ask;
use crate::fault::Exit;
use crate::table::{Table, bytes, count, percent, plain};

/// A page of jobs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Jobs {
    jobs: Vec<Job>,
    total: usize,
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Job {
    /// Its number.
    pub id: u64,
    state: String,
    doing: String,
    asked_by: String,
    request: Asked,
    created: String,
    errors: Vec<String>,
    #[serde(flatten)]
    held: Held,
    regions: Vec<Region>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Asked {
    image: String,
    scope: String,
}

/// A job's part in another region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Region {
    name: String,
    state: String,
    doing: String,
    errors: Vec<String>,
    #[serde(flatten)]
    held: Held,
}

/// Who holds what, in one region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Held {
    progress: Progress,
    layers: Vec<Layer>,
    failure: Vec<Row>,
    rows_left_out: u64,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Progress {
    /// Of all blobs at all nodes together.
    pub bytes: u64,
    /// What nodes hold of that.
    pub bytes_held: u64,
    nodes: u64,
    nodes_done: u64,
    nodes_failed: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Layer {
    digest: String,
    size: u64,
    nodes_done: u64,
    nodes_failed: u64,
}

/// A blob that a node does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Row {
    url: String,
    hostname: String,
    ip: String,
    description: String,
}

/// What the gateway is asked for; what was not said is its own choice.
pub fn body(ask: &Ask) -> Value {
    let mut body = json!({ "image": ask.image });
    let mut say = |key: &str, value: Option<Value>| {
        if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
            body.insert(key.to_owned(), value);
        }
    };
    say("scope", ask.scope.clone().map(Value::from));
    say("platforms", (!ask.platform.is_empty()).then(|| ask.platform.clone().into()));
    say("timeout", ask.timeout.clone().map(Value::from));
    say("regions", (!ask.regions.is_empty()).then(|| ask.regions.clone().into()));
    body
}

impl Jobs {
    /// Those that have not ended.
    pub fn under_way(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|it| it.exit().is_none())
    }

    /// One a line.
    pub fn list(&self) -> String {
        let mut table = Table::new(&["JOB", "STATE", "DOING", "HELD", "CREATED", "ASKED BY", "IMAGE"]);
        for job in &self.jobs {
            let Progress { bytes, bytes_held, .. } = job.progress();
            table.row([
                job.id.to_string(),
                job.state.clone(),
                job.doing.clone(),
                percent(bytes_held, bytes),
                job.created.clone(),
                job.asked_by.clone(),
                job.request.image.clone(),
            ]);
        }
        let all = if self.total > self.jobs.len() {
            format!(" of {}, the latest", self.total)
        } else {
            String::new()
        };
        format!("{table}{}{all}\n", count(self.jobs.len(), "job"))
    }
}

impl Job {
    /// What the process ends with, where the job has ended.
    pub fn exit(&self) -> Option<Exit> {
        match self.state.as_str() {
            "SUCCESS" => Some(Exit::Done),
            "FAILURE" => Some(Exit::Failure),
            _ => None,
        }
    }

    /// How far it is in all regions together.
    pub fn progress(&self) -> Progress {
        self.regions.iter().map(|it| it.held.progress).fold(self.held.progress, |sum, it| Progress {
            bytes: sum.bytes.saturating_add(it.bytes),
            bytes_held: sum.bytes_held.saturating_add(it.bytes_held),
            nodes: sum.nodes.saturating_add(it.nodes),
            nodes_done: sum.nodes_done.saturating_add(it.nodes_done),
            nodes_failed: sum.nodes_failed.saturating_add(it.nodes_failed),
        })
    }

    /// In one line, without how much of a second went by.
    pub fn line(&self) -> String {
        let Progress { bytes, bytes_held, nodes, nodes_done, nodes_failed } = self.progress();
        let mut line = format!("{} {}: {}", self.id, self.request.image, self.doing);
        if bytes > 0 {
            line += &format!(", {}", percent(bytes_held, bytes));
        }
        if nodes > 0 {
            line += &format!(", {nodes_done} of {nodes} nodes done");
        }
        if nodes_failed > 0 {
            line += &format!(", {nodes_failed} failed");
        }
        line
    }

    /// All about it: what came of it in this region and in each other one, with the causes.
    pub fn show(&self) -> String {
        let mut table = Table::bare();
        let mut line = |name: &str, value: String| table.row([name.to_owned(), value]);
        line("job", self.id.to_string());
        line("image", self.request.image.clone());
        line("scope", self.request.scope.clone());
        line("asked by", format!("{} at {}", self.asked_by, self.created));
        line("state", format!("{} ({})", self.state, self.doing));
        line("held", held_line(self.held.progress));
        let mut text = table.to_string();
        text += &errors(&self.errors);
        text += &self.held.show();
        for Region { name, state, doing, errors: its_errors, held } in &self.regions {
            let progress = held_line(held.progress);
            text += &format!("region {}: {} ({}), {progress}\n", plain(name), plain(state), plain(doing));
            text += &errors(its_errors);
            text += &held.show();
        }
        text
    }
}

impl Held {
    /// Each layer, and below it who does not hold it and why.
    fn show(&self) -> String {
        let mut table = Table::new(&["LAYER", "SIZE", "NODES", "FAILED"]);
        for Layer { digest, size, nodes_done, nodes_failed } in &self.layers {
            table.row([digest.clone(), bytes(*size), nodes_done.to_string(), nodes_failed.to_string()]);
        }
        let mut text = if self.layers.is_empty() { String::new() } else { table.to_string() };
        for Row { url, hostname, ip, description } in &self.failure {
            let digest = url.rsplit('/').next().unwrap_or_default();
            let address = if ip.is_empty() { String::new() } else { format!(" ({ip})") };
            text += &plain(&format!("failed: {digest} at {hostname}{address}: {description}"));
            text.push('\n');
        }
        if self.rows_left_out > 0 {
            text += &format!("{} more rows are left out\n", self.rows_left_out);
        }
        text
    }
}

fn errors(all: &[String]) -> String {
    all.iter().map(|it| format!("error: {}\n", plain(it))).collect()
}

fn held_line(Progress { bytes: all, bytes_held, nodes, nodes_done, nodes_failed }: Progress) -> String {
    let failed = if nodes_failed > 0 { format!(", {nodes_failed} failed") } else { String::new() };
    format!("{} of {}, {nodes_done} of {nodes} nodes done{failed}", bytes(bytes_held), bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Format, Shown};
    use crate::fleet::read;

    fn job(state: &str) -> Value {
        let digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        json!({
            "id": 7,
            "state": state,
            "doing": "storing",
            "askedBy": "ann",
            "hasCredential": false,
            "request": { "image": "h.example/a:v1", "scope": "all_peers", "timeout": 1700 },
            "created": "2027-01-01T00:00:00.000Z",
            "updated": "2027-01-01T00:00:01.000Z",
            "errors": ["1 of 2 nodes hold all that they should"],
            "progress": { "bytes": 200, "bytesHeld": 150, "nodes": 2, "nodesDone": 1, "nodesFailed": 1 },
            "layers": [{ "digest": digest, "size": 100, "nodesDone": 1, "nodesFailed": 1 }],
            "success": [],
            "failure": [{
                "url": format!("https://h.example/v2/a/blobs/{digest}"),
                "hostname": "n-2", "ip": "10.0.1.2", "description": "the disk\u{1b}[2J is full",
            }],
            "rowsLeftOut": 3,
            "regions": [{
                "name": "ap", "state": "PENDING", "doing": "absent", "errors": ["not connected"],
                "progress": { "bytes": 100, "bytesHeld": 0, "nodes": 1, "nodesDone": 0, "nodesFailed": 0 },
                "layers": [], "success": [], "failure": [], "rowsLeftOut": 0,
            }],
        })
    }

    #[test]
    fn a_body_says_what_was_said_and_nothing_else() {
        let ask = Ask {
            image: Some("h.example/a:v1".to_owned()),
            wait: true,
            scope: None,
            platform: Vec::new(),
            timeout: None,
            regions: Vec::new(),
            shown: Shown { output: Format::Table },
        };
        assert_eq!(body(&ask), json!({ "image": "h.example/a:v1" }));
        let full = Ask {
            scope: Some("all_peers".to_owned()),
            platform: vec!["linux/amd64".to_owned()],
            timeout: Some("10m".to_owned()),
            regions: vec!["eu".to_owned()],
            ..ask
        };
        let expected = json!({
            "image": "h.example/a:v1", "scope": "all_peers", "platforms": ["linux/amd64"], "timeout": "10m",
            "regions": ["eu"],
        });
        assert_eq!(body(&full), expected);
    }

    #[test]
    fn the_state_is_the_exit_code() {
        let exit = |state: &str| read::<Job>(&job(state)).unwrap().exit();
        let all = ["PENDING", "SUCCESS", "FAILURE", "LATER"].map(exit);
        assert_eq!(all, [None, Some(Exit::Done), Some(Exit::Failure), None]);
    }

    #[test]
    fn a_job_is_shown_with_the_causes_for_each_layer_and_node() {
        let job: Job = read(&job("FAILURE")).unwrap();
        assert_eq!(job.line(), "7 h.example/a:v1: storing, 50 %, 1 of 3 nodes done, 1 failed");
        let text = job.show();
        for part in [
            "state     FAILURE (storing)\n",
            "held      150 B of 200 B, 1 of 2 nodes done, 1 failed\n",
            "error: 1 of 2 nodes hold all that they should\n",
            "b0f00a08  100 B  1      1\n",
            "b0f00a08 at n-2 (10.0.1.2): the disk[2J is full\n",
            "3 more rows are left out\n",
            "region ap: PENDING (absent), 0 B of 100 B, 0 of 1 nodes done\nerror: not connected\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn jobs_are_listed() {
        let all: Jobs = read(&json!({ "jobs": [job("PENDING"), job("SUCCESS")], "total": 12 })).unwrap();
        assert_eq!(all.under_way().count(), 1);
        let text = all.list();
        assert!(
            text.contains("7    PENDING  storing  50 %") && text.contains("2 jobs of 12, the latest\n"),
            "{text}"
        );
    }
}
