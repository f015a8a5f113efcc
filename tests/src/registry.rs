//! A real registry (CNCF Distribution) on a machine of its own, behind a counting front.
//!
//! The front is what clients reach: plain on port 5000, or with TLS on port 443. The registry itself
//! listens on its machine's loopback; pushes go there, so that the front has seen pulls only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::Launch;
use crate::counting::Front;
use crate::host::Host;
use crate::image::Image;
use crate::lab::Lab;
use crate::process::Process;
pub use crate::push::Credentials;
use crate::push::Pusher;
use crate::tls::Authority;

const PLAIN_PORT: u16 = 5000;
const TLS_PORT: u16 = 443;
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001);

/// What a registry is to be.
#[derive(Clone, Debug)]
pub struct RegistrySpec {
    /// The name of its machine, which also answers to `<name>.test`.
    pub name: String,
    /// Further names it answers to, such as a public registry's that it plays.
    pub aliases: Vec<String>,
    /// The one user who may read and write; `None` for everybody.
    pub credentials: Option<Credentials>,
    /// Whether the nodes' runtimes are told the credentials.
    pub nodes_log_in: bool,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl RegistrySpec {
    /// A registry named `registry`, without TLS and open to everybody.
    pub fn plain() -> Self {
        Self {
            name: "registry".into(),
            aliases: Vec::new(),
            credentials: None,
            nodes_log_in: true,
            tls: false,
        }
    }

    /// The same for one user only.
    pub fn for_user(self, user: &str, password: &str) -> Self {
        Self { credentials: Some(Credentials { user: user.into(), password: password.into() }), ..self }
    }

    /// The same whose credentials no node is told.
    pub fn unknown_to_nodes(self) -> Self {
        Self { nodes_log_in: false, ..self }
    }

    /// The same with TLS, by an authority of its own.
    pub fn with_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// The same under another name.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The same answering to a further name.
    pub fn playing(mut self, alias: &str) -> Self {
        self.aliases.push(alias.into());
        self
    }
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    /// Its machine.
    pub host: Host,
    /// What its clients reach.
    pub front: Front,
    /// The program behind the front.
    pub process: Process,
    authority: String,
    names: Vec<String>,
    credentials: Option<Credentials>,
    nodes_log_in: bool,
    ca: Option<PathBuf>,
}

impl Registry {
    pub(crate) async fn start(lab: &mut Lab, spec: RegistrySpec) -> Result<Self> {
        let host = lab.host(&spec.name).await?;
        let name = format!("{}.test", spec.name);
        let names: Vec<String> = [name.clone()].into_iter().chain(spec.aliases).collect();
        for name in &names {
            lab.alias(name, &host)?;
        }

        let config = host.dir().join("config.json");
        std::fs::write(&config, settings(&host, spec.credentials.as_ref()).await?)?;
        let launch = Launch::new("docker-registry").arg("serve").arg(&config);
        let mut process = host.start("docker-registry", launch)?;
        process.wait_for_port(SERVER.port()).await?;

        let ca = spec.tls.then(|| Authority::create(host.dir().join("ca.crt"))).transpose()?;
        let tls = ca.as_ref().map(|it| it.server(&names, host.address().into())).transpose()?;
        let port = if spec.tls { TLS_PORT } else { PLAIN_PORT };
        let front = Front::start(&host, port, SERVER, tls)
            .with_context(|| format!("{name}: no front at port {port}"))?;
        Ok(Self {
            authority: if spec.tls { name } else { format!("{name}:{port}") },
            ca: ca.map(|it| it.file().into()),
            names,
            credentials: spec.credentials,
            nodes_log_in: spec.nodes_log_in,
            host,
            front,
            process,
        })
    }

    /// Host and port, as they stand in image references.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether this is one of its host names.
    pub fn answers_to(&self, name: &str) -> bool {
        self.names.iter().any(|it| it == name)
    }

    /// Its URL, without a path.
    pub fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// The certificate of its authority, if it speaks TLS.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Who may use it, if not everybody.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// What the nodes' runtimes log in with.
    pub fn nodes_credentials(&self) -> Option<&Credentials> {
        self.credentials().filter(|_| self.nodes_log_in)
    }

    /// The reference of an image in this registry, by tag.
    pub fn reference(&self, image: &Image) -> String {
        format!("{}/{}:{}", self.authority, image.repository, image.tag)
    }

    /// Pushes an image, past the front.
    pub async fn push(&self, image: &Image) -> Result<()> {
        let credentials = self.credentials.as_ref();
        Pusher { host: &self.host, base: format!("http://{SERVER}"), credentials }.push(image).await
    }
}

/// The registry's settings; JSON is YAML.
async fn settings(host: &Host, credentials: Option<&Credentials>) -> Result<String> {
    let mut settings = serde_json::json!({
        "version": 0.1,
        "log": { "level": "info" },
        "storage": {
            "filesystem": { "rootdirectory": host.dir().join("data") },
            "delete": { "enabled": true },
        },
        // Upload addresses without a host, since clients come by several names.
        "http": { "addr": SERVER.to_string(), "relativeurls": true },
    });
    if let Some(Credentials { user, password }) = credentials {
        let file = host.dir().join("htpasswd");
        let create = Launch::new("htpasswd").arg("-Bbc").arg(&file).args([user, password]);
        create.run(Duration::from_secs(30)).await?;
        settings["auth"] = serde_json::json!({ "htpasswd": { "realm": "lab", "path": file } });
    }
    Ok(settings.to_string())
}
