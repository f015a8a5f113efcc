//! The `main` that all services share: arguments, settings, runtime, exit code.
//!
//! Exit codes: 0 when it was told to stop, 1 when it failed, 64 when the arguments or settings are wrong. The
//! last is apart so that a service manager does not restart what only an operator can mend.
//!
//! Every service's default settings contain the keys that are read here:
//!
//! ```yaml
//! verbose: false
//! log: {level: info, format: json}
//! traces: {endpoint: "", oneIn: 1}
//! admin: {listen: "127.0.0.1:65010"}
//! shutdownGrace: 10s
//! ```

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches, Parser};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::context::Context;
use crate::lifecycle::{self, Plan};
use crate::open_files;
use crate::settings::Reader;
use crate::telemetry::{self, LogSettings};
use crate::traces::{TraceSettings, Traces};
use crate::watchdog::Watchdog;

/// The keys of every service's settings that are read here.
pub const KEYS: [&str; 7] = [
    "admin.listen",
    "log.format",
    "log.level",
    "shutdownGrace",
    "traces.endpoint",
    "traces.oneIn",
    "verbose",
];
/// The exit code for wrong arguments and settings (`EX_USAGE` of sysexits).
const EXIT_USAGE: u8 = 64;

/// What makes one service's program different from another's.
pub struct Program {
    /// Its name: `shoal-sidecar`.
    pub name: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The settings file that is read when the arguments name none; it may be absent.
    pub config_path: &'static str,
    /// The commented default settings.
    pub default_config: &'static str,
}

#[derive(Parser)]
struct Args {
    /// Settings file (YAML). Keys that it leaves out keep their defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the settings, print every mistake, and exit
    #[arg(long)]
    check_config: bool,
    /// Print the commented default settings and exit
    #[arg(long, conflicts_with = "check_config")]
    print_default_config: bool,
}

/// Everything that was read from the settings.
struct Loaded<S> {
    service: S,
    /// The file they came from, unless there is none.
    file: Option<PathBuf>,
    log: LogSettings,
    traces: TraceSettings,
    plan: Plan,
}

impl Program {
    /// Runs the service: `read` makes its settings, `start` builds it and spawns its tasks.
    ///
    /// `start` ends when everything is up; from then on the process lives until a signal or a failed task.
    pub fn run<S, F>(&self, read: impl FnOnce(&Reader) -> S, start: impl FnOnce(S, Context) -> F) -> ExitCode
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let args = match self.args(std::env::args_os()) {
            Ok(args) => args,
            Err(error) => {
                // Help and version come as errors, too; where they cannot be printed, nothing can.
                let _ = error.print();
                return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
            }
        };
        if args.print_default_config {
            return print(self.default_config);
        }
        let loaded = match self.load(args.config, read) {
            Ok(loaded) => loaded,
            Err(error) => {
                // The exit code says it as well where standard error is closed.
                let _ = writeln!(io::stderr(), "{}: {error:#}", self.name);
                return EXIT_USAGE.into();
            }
        };
        if args.check_config {
            return print("the settings are good\n");
        }
        match self.live(loaded, start) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "failed");
                ExitCode::FAILURE
            }
        }
    }

    fn args(&self, args: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
        let command = Args::command().name(self.name).about(self.about).version(self.version);
        Args::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    /// The keys of the default settings that nobody reads, for the service's test that there are none.
    pub fn unread_keys<S>(&self, read: impl FnOnce(&Reader) -> S) -> Vec<String> {
        let reader = Reader::new("", self.default_config, |_| None);
        Loaded::read(&reader, None, read);
        reader.unread_keys()
    }

    fn load<S>(&self, config: Option<PathBuf>, read: impl FnOnce(&Reader) -> S) -> anyhow::Result<Loaded<S>> {
        let may_be_absent = config.is_none();
        let path = config.unwrap_or_else(|| self.config_path.into());
        let subject = || format!("settings {}", path.display());
        let user = match std::fs::read_to_string(&path) {
            Ok(user) => Some(user),
            Err(err) if err.kind() == io::ErrorKind::NotFound && may_be_absent => None,
            Err(err) => return Err(err).with_context(subject),
        };
        let env = |name: &str| std::env::var(name).ok();
        let reader = Reader::new(user.as_deref().unwrap_or_default(), self.default_config, env);
        let loaded = Loaded::read(&reader, user.is_some().then(|| path.clone()), read);
        reader.finish().with_context(subject)?;
        Ok(loaded)
    }

    fn live<S, F>(&self, loaded: Loaded<S>, start: impl FnOnce(S, Context) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
        let traces = runtime.block_on(async { Traces::start(&loaded.traces, self.name, self.version) })?;
        let level = telemetry::init(loaded.log, traces.as_ref()).context("start logging")?;
        tracing::info!(
            service = self.name,
            version = self.version,
            config = ?loaded.file,
            "starting"
        );
        open_files::raise_limit();
        let res = runtime.block_on(async {
            let _watchdog = Watchdog::start().context("start the watchdog")?;
            if let Some(file) = loaded.file {
                let default = self.default_config;
                let read = move |text: &str| {
                    let reader = Reader::new(text, default, |name| std::env::var(name).ok());
                    let settings = LogSettings::read(&reader);
                    reader.finish()?;
                    Ok(settings)
                };
                // Not in the group of tasks: the level counts while that drains, too.
                tokio::spawn(telemetry::follow_level(file, level, loaded.log, read));
            }
            let ctx = Context::new(self.name, self.version);
            let service = start(loaded.service, ctx.clone());
            lifecycle::run(ctx, loaded.plan, service, signals()?).await
        });
        if let Some(traces) = traces {
            traces.end();
        }
        // What is still blocked on a disk must not hold the process: it was given its grace.
        runtime.shutdown_background();
        res
    }
}

impl<S> Loaded<S> {
    fn read(reader: &Reader, file: Option<PathBuf>, read: impl FnOnce(&Reader) -> S) -> Self {
        Self {
            file,
            log: LogSettings::read(reader),
            traces: TraceSettings::read(reader),
            plan: Plan { admin: reader.get("admin.listen"), grace: reader.get("shutdownGrace") },
            service: read(reader),
        }
    }
}

/// The names of the signals to stop, as they come.
fn signals() -> anyhow::Result<mpsc::Receiver<&'static str>> {
    let (send, receive) = mpsc::channel(1);
    let mut term = signal(SignalKind::terminate()).context("watch for signals")?;
    let mut int = signal(SignalKind::interrupt()).context("watch for signals")?;
    // Not in the group of tasks: a second signal must be heard while that group drains.
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            if send.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

/// Prints to standard output, which may have been closed (`| head`): then the exit code tells.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program = Program {
        name: "shoal-test",
        about: "Tests",
        version: "1.2.3",
        config_path: "/nonexistent/shoal.yaml",
        default_config: "
verbose: false
log: {level: info, format: json}
traces: {endpoint: '', oneIn: 1}
admin: {listen: '127.0.0.1:0'}
shutdownGrace: 10s
name: x
",
    };

    fn name(reader: &Reader) -> String {
        reader.get("name")
    }

    #[track_caller]
    fn check(file: Option<&str>, expected: Result<&str, &str>) {
        let dir = tempfile::tempdir().unwrap();
        let path = file.map(|text| {
            let path = dir.path().join("config.yaml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let res = PROGRAM
            .load(path, name)
            .map(|it| it.service)
            .map_err(|it| format!("{it:#}").replace(&*dir.path().to_string_lossy(), "DIR"));
        assert_eq!(res, expected.map(String::from).map_err(String::from));
    }

    #[test]
    fn settings_come_from_the_file_over_the_defaults() {
        check(None, Ok("x"));
        check(Some("name: y"), Ok("y"));
        check(
            Some("{log: {level: loud}, nane: y}"),
            Err("settings DIR/config.yaml: 2 mistakes:\n  \
                 nane is not a setting; did you mean name?\n  \
                 log.level = \"loud\" is not a log level: off, error, warn, info, debug or trace"),
        );
    }

    #[test]
    fn a_file_that_was_named_must_exist() {
        let missing = PathBuf::from("/nonexistent/other.yaml");
        let error = PROGRAM.load(Some(missing), name).err().unwrap();
        assert!(format!("{error:#}").starts_with("settings /nonexistent/other.yaml: No such file"));
    }

    #[test]
    fn a_default_without_effect_is_found() {
        assert_eq!(PROGRAM.unread_keys(name), [""; 0]);
        assert_eq!(PROGRAM.unread_keys(|_| ()), ["name"]);
    }

    #[test]
    fn arguments_are_checked() {
        let parse = |args: &[&str]| {
            let args = ["shoal-test"].iter().chain(args).map(OsString::from);
            PROGRAM.args(args).map_err(|it| it.use_stderr())
        };
        assert!(parse(&["--config", "a.yaml", "--check-config"]).is_ok());
        for printed in ["--help", "--version"] {
            assert_eq!(parse(&[printed]).err(), Some(false), "{printed}");
        }
        for wrong in [&["--confg"][..], &["x"], &["--check-config", "--print-default-config"]] {
            assert_eq!(parse(wrong).err(), Some(true), "{wrong:?}");
        }
    }
}
