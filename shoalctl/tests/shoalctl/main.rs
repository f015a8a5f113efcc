//! The program as people run it: exit codes, what is printed and what is sent.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

mod double;
mod node;
mod real;
mod region;

use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

/// A management token, and the hash of its secret.
const TOKEN: &str = "shoal_3985dac9_cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
const HASH: &str = "3985dac9133f8144ae1ab001dd0a29dffdddb1bf14a5f95aa24c8eed2e5bde2c";
const DEADLINE: Duration = Duration::from_secs(60);

/// What became of a run.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|it| panic!("{it}: {self:?}"))
    }

    #[track_caller]
    fn ends(&self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.out.contains(part) || self.err.contains(part), "{part:?} in {self:?}");
    }
}

/// Runs it with the token in the environment, and looks that the token is printed nowhere.
async fn run(args: &[&str]) -> Ran {
    run_with(args, &[("SHOAL_TOKEN", TOKEN)]).await
}

async fn run_with(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoalctl"));
    command
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.unwrap().unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!format!("{ran:?}").contains("cdcdcd"), "the token is printed: {ran:?}");
    ran
}

#[tokio::test]
async fn shells_are_told_what_there_is() {
    for shell in ["bash", "zsh", "fish"] {
        run(&["completions", shell]).await.ends(0, "preheat");
    }
}
