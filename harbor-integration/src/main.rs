//! `shoal-harbor`: sets Harbor up to use Shoal, and says what is wrong with a set-up.
//!
//! Exit codes: 0 when all is well, 1 when something is not, 64 when the arguments or settings are wrong.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use shoal_harbor::check::{State, check};
use shoal_harbor::settings::{DEFAULT, Settings};
use shoal_harbor::setup::{Options, remove, set_up};
use shoal_ops::settings::Reader;

/// The exit code for wrong arguments and settings (`EX_USAGE` of sysexits).
const EXIT_USAGE: u8 = 64;

/// Sets Harbor up to use Shoal, and says what is wrong with a set-up.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Settings file (YAML). Keys that it leaves out keep their defaults
    #[arg(long, value_name = "FILE", default_value = "/etc/shoal/harbor.yaml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes in Harbor what is missing, and changes what is not as it should be
    Setup {
        /// Only say what would be changed
        #[arg(long)]
        dry_run: bool,
        /// Have Harbor make the robot another secret; the one before ends
        #[arg(long)]
        new_secret: bool,
    },
    /// Proves the wiring from end to end, and says what is wrong and how to mend it
    Check,
    /// Takes away from Harbor what `setup` made
    Remove {
        /// Only say what would be taken away
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints the commented default settings
    PrintDefaultConfig,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors, too; where they cannot be printed, nothing can.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    if matches!(cli.command, Command::PrintDefaultConfig) {
        print!("{DEFAULT}");
        return ExitCode::SUCCESS;
    }
    let settings = match load(&cli.config) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("shoal-harbor: {error:#}");
            return EXIT_USAGE.into();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.context("start the runtime").and_then(|it| it.block_on(run(cli.command, &settings)));
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("shoal-harbor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> anyhow::Result<Settings> {
    let subject = || format!("settings {}", path.display());
    let user = std::fs::read_to_string(path).with_context(subject)?;
    let reader = Reader::new(&user, DEFAULT, |name| std::env::var(name).ok());
    let settings = Settings::read(&reader);
    reader.finish().with_context(subject)?;
    Ok(settings)
}

async fn run(command: Command, settings: &Settings) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut say = |it: String| println!("{it}");
    match command {
        Command::Setup { dry_run, new_secret } => {
            let n = set_up(settings, Options { dry_run, new_secret }, now, &mut say).await?;
            println!("{n} {}", if dry_run { "to change" } else { "changed" });
        }
        Command::Remove { dry_run } => {
            let n = remove(settings, dry_run, &mut say).await?;
            println!("{n} {}", if dry_run { "to remove" } else { "removed" });
        }
        Command::Check => {
            let found = check(settings, now).await;
            found.iter().for_each(|it| println!("{it}"));
            let n_bad = found.iter().filter(|it| matches!(it.state, State::Bad { .. })).count();
            println!("{n_bad} wrong");
            return Ok(if n_bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::PrintDefaultConfig => {}
    }
    Ok(ExitCode::SUCCESS)
}
