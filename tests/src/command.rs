//! Programs run to their end: what they printed, or an error that carries what they complained about.

use std::ffi::{OsStr, OsString};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// A program to run, with arguments and environment; it can be started any number of times.
#[derive(Clone, Debug)]
pub struct Launch {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl Launch {
    /// A program by name or path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { program: program.as_ref().into(), args: Vec::new(), env: Vec::new() }
    }

    /// A shell script with positional arguments `$1`...
    pub fn shell(script: &str) -> Self {
        Self::new("sh").args(["-euc", script, "sh"])
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().into());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|it| it.as_ref().into()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().into()));
        self
    }

    /// The same launch as arguments and environment of `wrapper`, a program that runs its arguments.
    pub fn wrapped_by(&self, mut wrapper: Self) -> Self {
        wrapper.args.push(self.program.clone());
        wrapper.args.extend(self.args.iter().cloned());
        wrapper.env.extend(self.env.iter().cloned());
        wrapper
    }

    /// The same launch of a program that the kernel kills when this process ends, however it ends.
    ///
    /// The kernel ties that to the spawning thread, so it must not be started from blocking tasks, whose
    /// threads come and go.
    pub fn bound_to_us(&self) -> Self {
        self.wrapped_by(Self::new("setpriv").args(["--pdeathsig", "KILL", "--"]))
    }

    /// The program as a child of this process, which kills it when its handle is dropped.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs to the end and returns the standard output. Fails when the program cannot start, does not
    /// end within `deadline` (it is killed then) or ends with a status other than 0.
    pub async fn run(&self, deadline: Duration) -> Result<String> {
        let output = timeout(deadline, self.command().output())
            .await
            .with_context(|| format!("{self}: still running after {deadline:?}"))?
            .with_context(|| format!("{self}: cannot be started"))?;
        ensure!(
            output.status.success(),
            "{self}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl std::fmt::Display for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.program.to_string_lossy())?;
        self.args.iter().try_for_each(|it| write!(f, " {}", it.to_string_lossy()))
    }
}
