//! A Redis on a machine of its own, which forgets everything when it ends.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::command::Launch;
use crate::host::Host;
use crate::lab::Lab;
use crate::process::Process;
use crate::tls::Authority;

const NAME: &str = "redis";
const PORT: u16 = 6379;
const DEADLINE: Duration = Duration::from_secs(10);
const PASSWORD: &str = "s3cret-of-redis";

/// Who may use it, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, in the clear.
    Open,
    /// Whoever shows a password, by TLS.
    Secured,
}

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    /// Its machine.
    pub host: Host,
    /// The program.
    pub process: Process,
    settings: Value,
}

impl Redis {
    /// Starts one.
    pub async fn start(lab: &mut Lab, access: Access) -> Result<Self> {
        let host = lab.host(NAME).await?;
        let launch = Launch::new("redis-server").args(["--bind", "0.0.0.0", "--save", "", "--dir"]);
        let launch = launch.arg(host.dir());
        let (launch, settings) = match access {
            Access::Open => open(launch),
            Access::Secured => secured(launch, &host)?,
        };
        let mut process = host.start("redis-server", launch)?;
        process.wait_for_port(PORT).await?;
        Ok(Self { host, process, settings })
    }

    /// What a gateway has to be told of it.
    pub fn settings(&self) -> Value {
        self.settings.clone()
    }

    /// Has one that is open do something, as anybody may who reaches it; returns what it answers.
    pub async fn run(&self, command: &[&str]) -> Result<String> {
        let launch = Launch::new("redis-cli").args(["-h", &self.host.address().to_string()]).args(command);
        self.host.run(launch, DEADLINE).await
    }

    /// Starts it anew, with nothing in it.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart().await?;
        self.process.wait_for_port(PORT).await
    }
}

fn open(launch: Launch) -> (Launch, Value) {
    let launch = launch.args(["--port", &PORT.to_string(), "--protected-mode", "no"]);
    (launch, json!({ "url": format!("redis://{NAME}:{PORT}") }))
}

fn secured(launch: Launch, host: &Host) -> Result<(Launch, Value)> {
    let authority = Authority::create(host.dir().join("ca.crt"))?;
    let [certificate, key] = authority.certify_in(host.dir(), &[NAME.to_owned()], host.address().into())?;
    let launch = launch.args(["--port", "0", "--tls-port", &PORT.to_string(), "--tls-auth-clients", "no"]);
    let launch = launch.arg("--tls-cert-file").arg(certificate).arg("--tls-key-file").arg(key);
    let launch = launch.arg("--tls-ca-cert-file").arg(authority.file()).args(["--requirepass", PASSWORD]);
    let password = host.dir().join("password");
    std::fs::write(&password, PASSWORD)?;
    let settings = json!({
        "url": format!("rediss://{NAME}:{PORT}/0"),
        "ca": authority.file(),
        "password": format!("file:{}", password.display()),
    });
    Ok((launch, settings))
}
