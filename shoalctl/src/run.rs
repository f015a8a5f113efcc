//! Carries a command out, and gives what is to be printed and what the process ends with.

use clap::CommandFactory as _;
use serde_json::Value;
use shoal_ops::settings::Secret;

use crate::cli::{Cli, Command, Format, Nodes, Reach, Shown, Tasks};
use crate::fault::{Exit, Fault};
use crate::fleet::{self, NODES, TASKS, read};
use crate::gateway::{Gateway, segment};
use crate::{doctor, explain, get, preheat, purge, top};

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is to be printed.
    pub text: String,
    /// What the process ends with.
    pub exit: Exit,
}

impl Outcome {
    /// A document, as itself or as `show` makes it for people.
    ///
    /// # Errors
    /// Where `show` does not understand it.
    pub fn of(
        format: Format,
        document: &Value,
        exit: Exit,
        show: impl FnOnce(&Value) -> Result<String, Fault>,
    ) -> Result<Self, Fault> {
        let text = match format {
            Format::Json => format!("{document:#}\n"),
            Format::Table => show(document)?,
        };
        Ok(Self { text, exit })
    }
}

/// Carries it out; `token` is what the environment holds.
///
/// # Errors
/// Where that is not possible.
pub async fn run(cli: Cli, token: Option<Secret>) -> Result<Outcome, Fault> {
    let reach = &cli.reach;
    let gateway = || Gateway::new(reach, token);
    match &cli.command {
        Command::Doctor(asked) => examine(asked, reach).await,
        Command::Status(shown) => status(*shown, &gateway()?).await,
        Command::Top => top::top(&gateway()?).await,
        Command::Nodes(asked) => nodes(asked, &gateway()?).await,
        Command::Tasks(asked) => tasks(asked, &gateway()?).await,
        Command::Task(asked) => {
            let task = gateway()?.get(&format!("{TASKS}/{}", segment(&asked.id))).await?;
            Outcome::of(asked.shown.output, &task, Exit::Done, |it| Ok(fleet::task(&read(it)?)))
        }
        Command::Preheat(asked) => preheat::preheat(asked, &gateway()?).await,
        Command::Purge(asked) => purge::purge(asked, &gateway()?).await,
        Command::Explain(asked) => explain::explain(asked, reach).await,
        Command::Get(asked) => get::get(asked).await,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "shoalctl", &mut text);
            Ok(Outcome { text: String::from_utf8_lossy(&text).into_owned(), exit: Exit::Done })
        }
    }
}

async fn examine(asked: &crate::cli::Doctor, reach: &Reach) -> Result<Outcome, Fault> {
    let found = doctor::examine(asked, reach).await?;
    Outcome::of(asked.shown.output, &found.document(), found.exit(), |_| Ok(found.to_string()))
}

async fn nodes(asked: &Nodes, gateway: &Gateway) -> Result<Outcome, Fault> {
    let query = [("zone", asked.zone.as_deref()), ("task", asked.task.as_deref())];
    let all = gateway.list(NODES, "nodes", &query).await?;
    Outcome::of(asked.shown.output, &all, Exit::Done, |it| Ok(fleet::nodes(&read(it)?)))
}

async fn tasks(asked: &Tasks, gateway: &Gateway) -> Result<Outcome, Fault> {
    let query = [
        ("state", asked.state.as_deref()),
        ("registry", asked.registry.as_deref()),
        ("repository", asked.repository.as_deref()),
        ("digest", asked.digest.as_deref()),
    ];
    let all = gateway.list(TASKS, "tasks", &query).await?;
    Outcome::of(asked.shown.output, &all, Exit::Done, |it| Ok(fleet::tasks(&read(it)?)))
}

async fn status(shown: Shown, gateway: &Gateway) -> Result<Outcome, Fault> {
    let seen = fleet::look(gateway).await?;
    Outcome::of(shown.output, &seen, Exit::Done, |it| Ok(fleet::status(&read(it)?)))
}
