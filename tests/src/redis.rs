//! A Redis on a machine of its own, or several that belong together, which forget everything when they end.

use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::command::Launch;
use crate::host::Host;
use crate::lab::Lab;
use crate::process::Process;
use crate::tls::Authority;
use crate::wait;

const NAME: &str = "redis";
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const DEADLINE: Duration = Duration::from_secs(10);
/// How long several take to find each other.
const FORMING: Duration = Duration::from_secs(30);
const USER: &str = "gateway";
const PASSWORD: &str = "s3cret-of-redis";
const SENTINEL_PASSWORD: &str = "s3cret-of-sentinels";
/// What the page on several gateways says that a gateway needs.
const RIGHTS: &str = "+eval +time +get +set +del +pttl +pexpire +zadd +zrange +zremrangebyscore";

/// What kind it is, and who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// One for everybody, in the clear.
    Open,
    /// One, by TLS, for a user who may do no more than a gateway needs.
    Secured,
    /// A master and a replica with a password, and three Sentinels with another.
    Sentinels,
    /// A Cluster of three, for everybody.
    Cluster,
}

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    /// Its machine; of several, the first's.
    pub host: Host,
    /// The program there.
    pub process: Process,
    /// The replica, or the other members of the Cluster, each with its machine.
    pub others: Vec<(Host, Process)>,
    _sentinels: Vec<Process>,
    settings: Value,
}

impl Redis {
    /// Starts one, or as many as it takes.
    pub async fn start(lab: &mut Lab, access: Access) -> Result<Self> {
        match access {
            Access::Open => {
                let it = Self::alone(lab, &["--port", &PORT.to_string(), "--protected-mode", "no"]).await?;
                Ok(it.told(json!({ "url": url("redis") })))
            }
            Access::Secured => Self::secured(lab).await,
            Access::Sentinels => Self::with_sentinels(lab).await,
            Access::Cluster => Self::cluster(lab).await,
        }
    }

    /// What a gateway has to be told of it.
    pub fn settings(&self) -> Value {
        self.settings.clone()
    }

    /// Has one that is open do something, as anybody may who reaches it; returns what it answers.
    pub async fn run(&self, command: &[&str]) -> Result<String> {
        ask(&self.host, command).await
    }

    /// Starts it anew, with nothing in it.
    pub async fn restart(&mut self) -> Result<()> {
        restart(&mut self.process).await
    }

    /// The members of a Cluster by their numbers; that which has the gateways' keys comes first.
    pub async fn members(&self) -> Result<Vec<usize>> {
        let hosts = [&self.host].into_iter().chain(self.others.iter().map(|(host, _)| host));
        let is_empty =
            try_join_all(hosts.map(async |it| Ok::<_, Error>(ask(it, &["DBSIZE"]).await?.trim() == "0")));
        let is_empty = is_empty.await?;
        ensure!(is_empty.contains(&false), "no member has a key");
        let mut numbers: Vec<_> = (0..is_empty.len()).collect();
        numbers.sort_by_key(|it| is_empty[*it]);
        Ok(numbers)
    }

    /// The program of this number.
    pub fn member(&mut self, number: usize) -> &mut Process {
        match number.checked_sub(1) {
            None => &mut self.process,
            Some(number) => &mut self.others[number].1,
        }
    }

    async fn alone(lab: &mut Lab, args: &[&str]) -> Result<Self> {
        Self::at(lab.host(NAME).await?, args).await
    }

    async fn at(host: Host, args: &[&str]) -> Result<Self> {
        let process = serve(&host, args).await?;
        Ok(Self { host, process, others: Vec::new(), _sentinels: Vec::new(), settings: Value::Null })
    }

    fn told(self, settings: Value) -> Self {
        Self { settings, ..self }
    }

    async fn secured(lab: &mut Lab) -> Result<Self> {
        let host = lab.host(NAME).await?;
        let authority = Authority::create(host.dir().join("ca.crt"))?;
        let [certificate, key] =
            authority.certify_in(host.dir(), &[NAME.to_owned()], host.address().into())?;
        let [users, password] = ["users.acl", "password"].map(|it| host.dir().join(it));
        let gateway = format!("user {USER} on >{PASSWORD} resetchannels ~{{shoal}}:* -@all {RIGHTS}");
        std::fs::write(&users, format!("user default off\n{gateway}\n"))?;
        std::fs::write(&password, PASSWORD)?;
        let [certificate, key, users] = [certificate, key, users].map(|it| it.display().to_string());
        let ca = authority.file().display().to_string();
        let port = PORT.to_string();
        let tls = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--tls-cert-file"];
        let files = [&certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca, "--aclfile", &users];
        let it = Self::at(host.clone(), &[&tls[..], &files[..]].concat()).await?;
        Ok(it.told(json!({
            "url": format!("{}/0", url("rediss")),
            "ca": ca,
            "username": USER,
            "password": format!("file:{}", password.display()),
        })))
    }

    async fn with_sentinels(lab: &mut Lab) -> Result<Self> {
        let port = PORT.to_string();
        let args = ["--port", &port, "--requirepass", PASSWORD, "--masterauth", PASSWORD];
        let master = Self::alone(lab, &args).await?;
        let of_master = master.host.address().to_string();
        let at_replica = lab.host("redis2").await?;
        let replica = serve(&at_replica, &[&args[..], &["--replicaof", &of_master, &port]].concat()).await?;
        let hosts = [master.host.clone(), at_replica.clone(), lab.host("redis3").await?];
        let sentinels = try_join_all(hosts.iter().map(async |host| sentinel(host, &of_master).await)).await?;
        // Only Sentinels that know the replica and each other can put it in the master's place.
        for host in &hosts {
            wait::until("the sentinels know each other", FORMING, async || {
                let told = sentinel_says(host).await.ok()?;
                (told.contains("slaves=1") && told.contains("sentinels=3")).then_some(())
            })
            .await?;
        }
        let addresses: Vec<_> =
            hosts.iter().map(|it| format!("redis://{}:{SENTINEL_PORT}", it.address())).collect();
        let settings = json!({
            "sentinels": addresses,
            "master": "shoal",
            "password": PASSWORD,
            "sentinelPassword": SENTINEL_PASSWORD,
        });
        Ok(Self { others: vec![(at_replica, replica)], _sentinels: sentinels, ..master }.told(settings))
    }

    async fn cluster(lab: &mut Lab) -> Result<Self> {
        let port = PORT.to_string();
        let args = ["--port", &port, "--protected-mode", "no", "--cluster-enabled", "yes"];
        let args = [&args[..], &["--cluster-node-timeout", "1000"]].concat();
        // What the others have is served while one is away.
        let args = [&args[..], &["--cluster-require-full-coverage", "no"]].concat();
        let mut it = Self::alone(lab, &args).await?;
        for name in ["redis2", "redis3"] {
            let host = lab.host(name).await?;
            let process = serve(&host, &args).await?;
            it.others.push((host, process));
        }
        let hosts = [&it.host].into_iter().chain(it.others.iter().map(|(host, _)| host));
        let addresses: Vec<_> = hosts.clone().map(|it| format!("{}:{PORT}", it.address())).collect();
        let launch = Launch::new("redis-cli").args(["--cluster", "create"]).args(&addresses);
        it.host.run(launch.arg("--cluster-yes"), FORMING).await?;
        for host in hosts {
            wait::until("the members know each other", FORMING, async || {
                let told = ask(host, &["CLUSTER", "INFO"]).await.ok()?;
                told.contains("cluster_state:ok").then_some(())
            })
            .await?;
        }
        let addresses: Vec<_> = addresses.into_iter().map(|it| format!("redis://{it}")).collect();
        Ok(it.told(json!({ "cluster": addresses })))
    }
}

/// Starts the program of one anew.
pub async fn restart(process: &mut Process) -> Result<()> {
    process.restart().await?;
    process.wait_for_port(PORT).await
}

async fn serve(host: &Host, args: &[&str]) -> Result<Process> {
    let launch = Launch::new("redis-server").args(["--bind", "0.0.0.0", "--save", "", "--dir"]);
    let mut process = host.start("redis-server", launch.arg(host.dir()).args(args))?;
    process.wait_for_port(PORT).await?;
    Ok(process)
}

/// One that takes a master for dead after a second.
async fn sentinel(host: &Host, of_master: &str) -> Result<Process> {
    let file = host.dir().join("sentinel.conf");
    let settings = format!(
        "port {SENTINEL_PORT}\nbind 0.0.0.0\nrequirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n\
         sentinel monitor shoal {of_master} {PORT} 2\nsentinel auth-pass shoal {PASSWORD}\n\
         sentinel down-after-milliseconds shoal 1000\nsentinel failover-timeout shoal 5000\n"
    );
    std::fs::write(&file, settings).context("write a sentinel's settings")?;
    let mut process =
        host.start("redis-sentinel", Launch::new("redis-server").arg(file).arg("--sentinel"))?;
    process.wait_for_port(SENTINEL_PORT).await?;
    Ok(process)
}

async fn sentinel_says(host: &Host) -> Result<String> {
    let port = SENTINEL_PORT.to_string();
    let launch = Launch::new("redis-cli").args(["-p", &port, "-h", &host.address().to_string()]);
    let launch = launch.args(["--no-auth-warning", "-a", SENTINEL_PASSWORD, "INFO", "sentinel"]);
    host.run(launch, DEADLINE).await
}

async fn ask(host: &Host, command: &[&str]) -> Result<String> {
    let launch = Launch::new("redis-cli").args(["-h", &host.address().to_string()]).args(command);
    host.run(launch, DEADLINE).await
}

fn url(scheme: &str) -> String {
    format!("{scheme}://{NAME}:{PORT}")
}
