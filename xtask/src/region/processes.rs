//! The services' processes: started with a log file each, watched, and ended without a trace.
//!
//! Each leads a process group of its own, so that Ctrl-C in a terminal reaches the command alone, which then
//! ends them all and removes their files. Otherwise a service that heeds Ctrl-C would look like one that
//! died. Should the command itself be killed, the kernel kills them.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use futures_util::future::{join_all, select_all};
use shoal_tests::shoal::Part;
use tempfile::TempDir;
use tokio::process::Child;

const LOG_TAIL_LINES: usize = 12;

/// All processes and the directory of their files.
pub(crate) struct Processes {
    running: Vec<Process>,
    dir: TempDir,
}

struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Processes {
    /// None yet, and a new directory.
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-").tempdir();
        Ok(Self { running: Vec::new(), dir: dir.context("no temporary directory")? })
    }

    /// The directory for everything that the processes write.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a part under a name with its settings, which go to a file (JSON is YAML).
    pub(crate) fn start(&mut self, name: &str, part: Part, settings: &serde_json::Value) -> Result<()> {
        let file = |extension| self.dir().join(format!("{name}.{extension}"));
        let (config, log) = (file("yaml"), file("log"));
        std::fs::write(&config, settings.to_string())?;
        let output = File::create(&log)?;
        // Text logs are coloured unless told otherwise, and this one goes to a file.
        let launch = part.command()?.arg("--config").arg(config).env("NO_COLOR", "1").bound_to_us();
        let mut command = launch.command();
        command.stdout(output.try_clone()?).stderr(output).process_group(0);
        let child = command.spawn().with_context(|| format!("{name}: cannot be started"))?;
        self.running.push(Process { name: name.into(), log, child });
        Ok(())
    }

    /// The ids of all processes that run.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.running.iter().filter_map(|it| it.child.id()).collect()
    }

    /// The id of the process with this name.
    pub(crate) fn id_of(&self, name: &str) -> Option<u32> {
        self.running.iter().find(|it| it.name == name).and_then(|it| it.child.id())
    }

    /// Waits for the first process to end, which none should, and tells why it may have.
    pub(crate) async fn first_death(&mut self) -> Error {
        let deaths = self.running.iter_mut().map(|it| Box::pin(it.death()));
        select_all(deaths).await.0
    }

    /// Ends all processes, then removes their files.
    pub(crate) async fn end(mut self) -> Result<()> {
        // One that has ended already cannot be killed, and needs not.
        join_all(self.running.iter_mut().map(|it| it.child.kill())).await;
        let dir = self.dir.path().to_owned();
        self.dir.close().with_context(|| format!("{}: cannot be removed", dir.display()))
    }
}

impl Process {
    async fn death(&mut self) -> Error {
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n  ");
        anyhow!("{} ended early ({status}); the end of its log:\n  {tail}", self.name)
    }
}
