//! `purge`: forgets a repository, and removes its blobs from the region.

use std::io::{self, IsTerminal as _, Write as _};

use http::Method;
use serde::Deserialize;
use serde_json::json;

use crate::cli::Purge;
use crate::fault::{Exit, Fault};
use crate::fleet::read;
use crate::gateway::Gateway;
use crate::image::Place;
use crate::run::Outcome;
use crate::table::{Table, plain};

const PURGE: &str = "/api/v1/repositories/purge";
/// After so many calls it is enough: a gateway knows fewer blobs than these would remove.
const MAX_CALLS: usize = 64;

/// What was done about a repository.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Purged {
    registry: String,
    repository: String,
    blobs: Sums,
    removal: Option<Removal>,
    /// What the next call goes on after.
    next: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sums {
    own: usize,
    shared: usize,
    left: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Removal {
    nodes: Tally,
    failed: Vec<Row>,
    incomplete: Vec<Silent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tally {
    asked: usize,
    removed: usize,
    nothing: usize,
    failed: usize,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Row {
    id: String,
    address: String,
    cause: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Silent {
    scheduler: String,
    cause: String,
}

/// Does it, after asking whoever sits at a terminal.
///
/// # Errors
/// Where it is not done.
pub async fn purge(said: &Purge, gateway: &Gateway) -> Result<Outcome, Fault> {
    let Place { registry, repository } = Place::parse(&said.repository)?;
    if !said.yes {
        confirm(&format!(
            "forget {registry}/{repository} and remove its blobs from the region of {}",
            gateway.address()
        ))?;
    }
    let (registry, repository) = (registry.as_str(), repository.as_str());
    let (mut purged, mut calls, mut after) = (Purged::default(), Vec::new(), None);
    for _ in 0..MAX_CALLS {
        let body = match &after {
            Some(after) => json!({ "registry": registry, "repository": repository, "after": after }),
            None => json!({ "registry": registry, "repository": repository }),
        };
        let done = gateway.ask(Method::POST, PURGE, Some(&body)).await?;
        let call: Purged = read(&done.document)?;
        after = call.next.clone();
        purged.add(call);
        calls.push(done.document);
        if after.is_none() {
            break;
        }
    }
    let exit = if purged.is_whole() { Exit::Done } else { Exit::Failure };
    let document = json!({ "calls": calls });
    Outcome::of(said.shown.output, &document, exit, |_| Ok(show(&purged, exit)))
}

impl Purged {
    /// Adds what a later call has done.
    fn add(&mut self, later: Self) {
        (self.registry, self.repository) = (later.registry, later.repository);
        self.blobs.own += later.blobs.own;
        self.blobs.shared += later.blobs.shared;
        self.blobs.left = later.blobs.left;
        let Some(mut removal) = later.removal else { return };
        if let Some(before) = self.removal.take() {
            removal.add_earlier(before);
        }
        self.removal = Some(removal);
    }

    /// Whether nothing is left of what was known.
    fn is_whole(&self) -> bool {
        let is_whole =
            |it: &Removal| it.nodes.failed == 0 && it.failed.is_empty() && it.incomplete.is_empty();
        self.blobs.left == 0 && self.removal.as_ref().is_none_or(is_whole)
    }
}

impl Removal {
    /// Adds what an earlier call has done. Of a node that was asked each time, the most that a call had of it counts.
    fn add_earlier(&mut self, before: Self) {
        let (nodes, earlier) = (&mut self.nodes, before.nodes);
        nodes.asked = nodes.asked.max(earlier.asked);
        nodes.removed = nodes.removed.max(earlier.removed);
        nodes.nothing = nodes.nothing.min(earlier.nothing);
        nodes.failed = nodes.failed.max(earlier.failed);
        let is_new = |it: &Row| !self.failed.contains(it);
        let failed: Vec<_> = before.failed.into_iter().filter(is_new).collect();
        self.failed.splice(0..0, failed);
        let is_new = |it: &Silent| !self.incomplete.contains(it);
        let incomplete: Vec<_> = before.incomplete.into_iter().filter(is_new).collect();
        self.incomplete.splice(0..0, incomplete);
    }
}

fn confirm(what: &str) -> Result<(), Fault> {
    let not_done = |why: &str| Fault::usage(format!("not done: {why}"), "say --yes");
    if !io::stdin().is_terminal() {
        return Err(not_done("nobody is there to ask"));
    }
    eprint!("{what}? [y/N] ");
    // Where it cannot be shown, no answer is one.
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|it| not_done(&it.to_string()))?;
    let is_yes = ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
    if is_yes { Ok(()) } else { Err(not_done("it was not confirmed")) }
}

fn show(purged: &Purged, exit: Exit) -> String {
    let Purged { registry, repository, blobs: Sums { own, shared, left }, removal, .. } = purged;
    let mut table = Table::bare();
    let mut line = |name: &str, value: String| table.row([name.to_owned(), value]);
    line("forgotten", format!("{registry}/{repository}"));
    line(
        "blobs",
        format!("{own} to be removed, {shared} stay for another repository, {left} for the next call"),
    );
    if let Some(Removal { nodes: Tally { asked, removed, nothing, failed }, .. }) = removal {
        line("nodes", format!("{asked} asked: {removed} removed, {nothing} had nothing, {failed} failed"));
    }
    let mut text = table.to_string();
    for Row { id, address, cause } in removal.iter().flat_map(|it| &it.failed) {
        text +=
            &plain(&format!("failed: {id} ({address}): {}", cause.as_deref().unwrap_or("no cause is told")));
        text.push('\n');
    }
    for Silent { scheduler, cause } in removal.iter().flat_map(|it| &it.incomplete) {
        text += &plain(&format!("incomplete: no answer of scheduler {scheduler}: {cause}"));
        text.push('\n');
    }
    if exit != Exit::Done {
        text += "something may be left: run it again\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_several_calls_have_done_is_told_together() {
        let failed = json!({ "id": "n-1", "address": "10.0.0.1:65002", "blobs": 0, "cause": "read-only" });
        let removal = |failed: &[&Value]| {
            let nodes = json!({ "asked": 2, "removed": 1, "failed": failed.len() });
            json!({ "nodes": nodes, "failed": failed, "incomplete": [] })
        };
        let together = |calls: &[(usize, usize, Value)]| {
            let mut all = Purged::default();
            for (own, left, removal) in calls {
                let blobs = json!({ "own": own, "shared": 1, "left": left });
                all.add(read(&json!({ "blobs": blobs, "removal": removal })).unwrap());
            }
            all
        };
        let all = together(&[
            (1000, 1200, removal(&[&failed])),
            (1000, 200, removal(&[&failed])),
            (0, 200, Value::Null),
            (200, 0, removal(&[])),
        ]);
        assert_eq!((all.blobs.own, all.blobs.shared, all.blobs.left), (2200, 4, 0));
        assert!(!all.is_whole(), "what failed once may be left");
        let removal_of_all = all.removal.unwrap();
        assert_eq!(removal_of_all.nodes.failed, 1);
        assert_eq!(removal_of_all.failed, [read::<Row>(&failed).unwrap()]);
        assert!(together(&[(1000, 7, removal(&[])), (7, 0, removal(&[]))]).is_whole());
        assert!(!together(&[(1000, 7, removal(&[]))]).is_whole());
    }

    #[test]
    fn what_was_done_is_told_with_what_may_be_left() {
        let done = json!({
            "registry": "h.example", "repository": "a/b",
            "blobs": { "own": 3, "shared": 1, "left": 0 },
            "removal": {
                "nodes": { "asked": 4, "removed": 2, "nothing": 1, "failed": 1 },
                "removed": [],
                "failed": [{ "id": "n-1", "address": "10.0.0.1:65002", "blobs": 0, "cause": "not reached in time: ask again" }],
                "rowsLeftOut": 0,
                "incomplete": [{ "scheduler": "https://s:1", "cause": "refused" }],
            },
        });
        let expected = "forgotten  h.example/a/b\n\
                        blobs      3 to be removed, 1 stay for another repository, 0 for the next call\n\
                        nodes      4 asked: 2 removed, 1 had nothing, 1 failed\n\
                        failed: n-1 (10.0.0.1:65002): not reached in time: ask again\n\
                        incomplete: no answer of scheduler https://s:1: refused\n\
                        something may be left: run it again\n";
        assert_eq!(show(&read(&done).unwrap(), Exit::Failure), expected);
        let nothing = json!({ "registry": "h", "repository": "a", "blobs": {}, "removal": null });
        assert_eq!(show(&read(&nothing).unwrap(), Exit::Done).lines().count(), 2);
    }
}
