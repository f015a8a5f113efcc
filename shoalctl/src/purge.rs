//! `purge`: forgets a repository, and removes its blobs from the region.

use std::io::{self, IsTerminal as _, Write as _};

use http::{Method, StatusCode};
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

/// What was done about a repository.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Purged {
    registry: String,
    repository: String,
    blobs: Sums,
    removal: Option<Removal>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    id: String,
    address: String,
    cause: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
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
    let body = json!({ "registry": registry.as_str(), "repository": repository.as_str() });
    let done = gateway.ask(Method::POST, PURGE, Some(&body)).await?;
    // The status for "something may be left".
    let exit = if done.status == StatusCode::MULTI_STATUS { Exit::Failure } else { Exit::Done };
    Outcome::of(said.shown.output, &done.document, exit, |it| Ok(show(&read(it)?, exit)))
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
    let Purged { registry, repository, blobs: Sums { own, shared, left }, removal } = purged;
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
