//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use shoal_ask::address;
use url::Url;

/// Where a sidecar's admin listener is unless its settings say otherwise.
pub const NODE: &str = "http://127.0.0.1:65011";
/// Where a gateway's management API is unless its settings say otherwise.
pub const GATEWAY: &str = "http://127.0.0.1:65023";

const EXIT_CODES: &str = "\
Exit codes:
  0  it was done
  1  the answer is a failure: a job failed, `doctor` found something that is wrong, something may be left
  2  the command or its settings are wrong
  3  the other side was not reached, or cannot answer
  4  the other side refuses: no token, or one without the right
  5  there is no such thing

A token is never an argument: give its file, or the token itself in SHOAL_TOKEN.";

/// Shows what a Shoal region holds and does, and finds what is wrong with a node.
#[derive(Debug, Parser)]
#[command(name = "shoalctl", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Whom to ask, and as whom.
    #[command(flatten)]
    pub reach: Reach,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Whom to ask, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// The gateway's management API [default: http://127.0.0.1:65023]
    #[arg(long, global = true, env = "SHOAL_GATEWAY", value_name = "URL", value_parser = address)]
    pub gateway: Option<Url>,
    /// File of the management token; SHOAL_TOKEN may hold the token itself
    #[arg(long, global = true, env = "SHOAL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File of certificates to trust besides the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The sidecar's admin listener on this node [default: as its settings say, or http://127.0.0.1:65011]
    #[arg(long, global = true, env = "SHOAL_NODE", value_name = "URL", value_parser = address)]
    pub node: Option<Url>,
}

/// How something is printed.
#[derive(Clone, Copy, Debug, Args)]
pub struct Shown {
    /// A table for people, or the API's document as JSON
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Looks at this node and its wiring, and says what is wrong and how to mend it
    Doctor(Doctor),
    /// Shows the region on one screen
    Status(Shown),
    /// Shows what the region does, live on the whole terminal
    Top,
    /// Lists nodes and gateways
    Nodes(Nodes),
    /// Lists blobs that the region holds, wants or seeds
    Tasks(Tasks),
    /// Shows one of them
    Task(Task),
    /// Has an image where it will be wanted, before it is
    Preheat(Preheat),
    /// Forgets a repository, and removes its blobs from the region
    Purge(Purge),
    /// Says what became of each blob of an image on this node
    Explain(Explain),
    /// Fetches a blob by way of this node's mirror, and verifies it
    Get(Get),
    /// Prints completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Where the node's settings are found.
#[derive(Clone, Debug, Args)]
pub struct OnNode {
    /// The sidecar's settings file
    #[arg(long, value_name = "FILE", default_value = "/etc/shoal/sidecar.yaml")]
    pub settings: PathBuf,
    /// Where the node's file system is, for use inside a container
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Where to look.
    #[command(flatten)]
    pub on: OnNode,
    /// How to print.
    #[command(flatten)]
    pub shown: Shown,
}

/// `nodes`.
#[derive(Debug, Args)]
pub struct Nodes {
    /// Those in this zone
    #[arg(long)]
    pub zone: Option<String>,
    /// Those that hold something of this task or want it
    #[arg(long, value_name = "ID")]
    pub task: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub shown: Shown,
}

/// `tasks`.
#[derive(Debug, Args)]
pub struct Tasks {
    /// FETCHING, COMPLETE or PARTIAL
    #[arg(long)]
    pub state: Option<String>,
    /// The name of a registry, or one of its hosts
    #[arg(long)]
    pub registry: Option<String>,
    /// Blobs that this gateway has opened for this repository
    #[arg(long, requires = "registry")]
    pub repository: Option<String>,
    /// sha256:...
    #[arg(long)]
    pub digest: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub shown: Shown,
}

/// `task`.
#[derive(Debug, Args)]
pub struct Task {
    /// Trust group and digest: harbor.example.com@sha256:...
    pub id: String,
    /// How to print.
    #[command(flatten)]
    pub shown: Shown,
}

/// `preheat`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Preheat {
    /// About jobs that there are.
    #[command(subcommand)]
    pub command: Option<Jobs>,
    /// A new job.
    #[command(flatten)]
    pub ask: Ask,
}

/// A job that is asked for.
#[derive(Debug, Args)]
pub struct Ask {
    /// harbor.example.com/production/app:v2, or the URL of a manifest
    #[arg(required = true)]
    pub image: Option<String>,
    /// Wait for the end; its state is the exit code
    #[arg(long)]
    pub wait: bool,
    /// single_seed_peer, all_seed_peers or all_peers
    #[arg(long)]
    pub scope: Option<String>,
    /// linux/amd64; may be given several times [default: all of the image]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// How long the job may take: 10m
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Other regions in which the same is done, separated by commas; * for all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub regions: Vec<String>,
    /// How to print.
    #[command(flatten)]
    pub shown: Shown,
}

/// About jobs that there are.
#[derive(Debug, Subcommand)]
pub enum Jobs {
    /// Lists jobs, the latest first
    List {
        /// PENDING, SUCCESS or FAILURE
        #[arg(long)]
        state: Option<String>,
        /// How to print.
        #[command(flatten)]
        shown: Shown,
    },
    /// Shows a job
    Show(Job),
    /// Stops a job
    Cancel(Job),
}

/// One job.
#[derive(Debug, Args)]
pub struct Job {
    /// Its number
    pub id: u64,
    /// How to print.
    #[command(flatten)]
    pub shown: Shown,
}

/// `purge`.
#[derive(Debug, Args)]
pub struct Purge {
    /// harbor.example.com/production/app
    pub repository: String,
    /// Do not ask first
    #[arg(long)]
    pub yes: bool,
    /// How to print.
    #[command(flatten)]
    pub shown: Shown,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// harbor.example.com/production/app:v2
    pub image: String,
    /// Of an image for several platforms, which [default: this node's]
    #[arg(long)]
    pub platform: Option<String>,
    /// Where to look.
    #[command(flatten)]
    pub on: OnNode,
    /// How to print.
    #[command(flatten)]
    pub shown: Shown,
}

/// `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// harbor.example.com/production/app@sha256:..., or the blob's URL
    pub blob: String,
    /// Where it goes; until it is whole and verified, FILE.part
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Where to look.
    #[command(flatten)]
    pub on: OnNode,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|it| it.command)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_job_is_asked_for_by_an_image_and_looked_at_by_a_word() {
        let Ok(Command::Preheat(Preheat { command: None, ask })) =
            parse("shoalctl preheat a.example/b:c --regions eu,ap --wait -o json")
        else {
            panic!("a job")
        };
        assert_eq!(ask.image.as_deref(), Some("a.example/b:c"));
        assert_eq!(
            (ask.wait, ask.regions, ask.shown.output),
            (true, vec!["eu".into(), "ap".into()], Format::Json)
        );
        let shown = parse("shoalctl preheat show 7 -o json");
        assert!(matches!(
            shown,
            Ok(Command::Preheat(Preheat { command: Some(Jobs::Show(Job { id: 7, .. })), .. }))
        ));
        assert!(parse("shoalctl preheat list --state PENDING").is_ok());
        for wrong in ["shoalctl preheat", "shoalctl preheat show", "shoalctl preheat show x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_asked_may_be_said_before_and_after_the_command() {
        for line in ["shoalctl --node http://a:1 doctor", "shoalctl doctor --node http://a:1"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.reach.node.unwrap().as_str(), "http://a:1/");
        }
        for wrong in [
            "shoalctl --node a:1 doctor",
            "shoalctl --gateway https://u:p@a status",
            "shoalctl tasks --repository a",
            "shoalctl get a.example/b@sha256:1",
            "shoalctl --token secret status",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
