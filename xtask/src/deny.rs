//! `cargo xtask deny`: whether dependencies are what `deny.toml` lets them be.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::packages;
use crate::test::bound;

/// Runs the command. Advisories lie in a git repository that build machines without internet cannot fetch.
pub(crate) fn run() -> Result<ExitCode> {
    let mut command = bound(packages::DENY.ensure_installed()?);
    command.args(["deny", "--all-features", "check", "bans", "licenses", "sources"]);
    let status = command.status().context("cargo-deny cannot be started")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
