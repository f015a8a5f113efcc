//! A real registry (CNCF Distribution) on a machine of its own, behind a counting front.
//!
//! The front is what clients reach: plain on port 5000, or with TLS on port 443. The registry itself
//! listens on its machine's loopback; pushes go there, so that the front has seen pulls only.
//!
//! Where it has users, they show name and password, or a token of a service on another machine. One user owns
//! everything; the others may read what [`Rights`] say. With tokens the token service keeps to these, without
//! (the registry's own password file knows no rights) the front does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::Launch;
use crate::counting::Front;
use crate::host::Host;
use crate::image::{Image, Index};
use crate::lab::Lab;
use crate::process::Process;
pub use crate::push::Credentials;
use crate::push::Pusher;
use crate::rights::Rights;
use crate::tls::Authority;
use crate::tokens::{ISSUER, TokenService};

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
    /// The user who may read and write; `None` for everybody.
    pub credentials: Option<Credentials>,
    /// Further users, who may read what they are granted.
    pub readers: Vec<Credentials>,
    /// Whether users show tokens, and not their passwords.
    pub tokens: bool,
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
            readers: Vec::new(),
            tokens: false,
            nodes_log_in: true,
            tls: false,
        }
    }

    /// The same for a user who may read and write, and for nobody else.
    pub fn for_user(self, user: &str, password: &str) -> Self {
        Self { credentials: Some(Credentials { user: user.into(), password: password.into() }), ..self }
    }

    /// The same with a further user, who may read what is granted through [`Registry::rights`].
    pub fn with_reader(mut self, user: &str, password: &str) -> Self {
        self.readers.push(Credentials { user: user.into(), password: password.into() });
        self
    }

    /// The same with a token service for its users.
    pub fn with_tokens(self) -> Self {
        Self { tokens: true, ..self }
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
    /// Its token service, if it has one.
    pub tokens: Option<TokenService>,
    authority: String,
    names: Vec<String>,
    users: Option<Users>,
    nodes_log_in: bool,
    ca: Option<PathBuf>,
}

/// Who uses a registry that is not open to everybody.
#[derive(Debug)]
struct Users {
    owner: Credentials,
    readers: Vec<Credentials>,
    rights: Rights,
}

impl Users {
    fn of(spec: &RegistrySpec) -> Option<Self> {
        let owner = spec.credentials.clone()?;
        Some(Self { rights: Rights::of_owner(&owner.user), owner, readers: spec.readers.clone() })
    }

    fn all(&self) -> Vec<Credentials> {
        [&self.owner].into_iter().chain(&self.readers).cloned().collect()
    }
}

impl Registry {
    pub(crate) async fn start(lab: &mut Lab, spec: RegistrySpec) -> Result<Self> {
        let host = lab.host(&spec.name).await?;
        let users = Users::of(&spec);
        let name = format!("{}.test", spec.name);
        let names: Vec<String> = [name.clone()].into_iter().chain(spec.aliases).collect();
        for name in &names {
            lab.alias(name, &host)?;
        }
        let ca = spec.tls.then(|| Authority::create(host.dir().join("ca.crt"))).transpose()?;
        let tokens = match &users {
            Some(users) if spec.tokens => Some(start_tokens(lab, &spec.name, ca.as_ref(), users).await?),
            _ => None,
        };

        let auth = match (&users, &tokens) {
            (_, Some(tokens)) => token_auth(&name, spec.tls, tokens),
            (Some(users), None) => password_auth(&host, &users.all()).await?,
            (None, None) => json!({}),
        };
        let config = host.dir().join("config.json");
        std::fs::write(&config, settings(&host, &auth).to_string())?;
        let launch = Launch::new("docker-registry").arg("serve").arg(&config);
        let mut process = host.start("docker-registry", launch)?;
        process.wait_for_port(SERVER.port()).await?;

        let tls = ca.as_ref().map(|it| it.server(&names, host.address().into())).transpose()?;
        let port = if spec.tls { TLS_PORT } else { PLAIN_PORT };
        let by_front = users.as_ref().filter(|_| tokens.is_none()).map(|it| it.rights.clone());
        let front = Front::start(&host, port, SERVER, tls, by_front)
            .with_context(|| format!("{name}: no front at port {port}"))?;
        Ok(Self {
            authority: if spec.tls { name } else { format!("{name}:{port}") },
            ca: ca.map(|it| it.file().into()),
            names,
            users,
            nodes_log_in: spec.nodes_log_in,
            host,
            front,
            process,
            tokens,
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

    /// Its owner, if not everybody may do everything.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.users.as_ref().map(|it| &it.owner)
    }

    /// One of its users.
    pub fn user(&self, name: &str) -> Result<&Credentials> {
        let users = self.users.as_ref().context("everybody may use it")?;
        let mut all = [&users.owner].into_iter().chain(&users.readers);
        all.find(|it| it.user == name).with_context(|| format!("{name}: no user of {}", self.authority))
    }

    /// What its users may read.
    pub fn rights(&self) -> Result<&Rights> {
        Ok(&self.users.as_ref().context("everybody may use it")?.rights)
    }

    /// What a user, or somebody unknown, shows to read a repository, as a header's value; `None` for nothing.
    pub fn authorization(&self, user: Option<&str>, repository: &str) -> Result<Option<String>> {
        if let Some(tokens) = &self.tokens {
            return Ok(Some(format!("Bearer {}", tokens.token(user, repository)?)));
        }
        user.map(|it| Ok(self.user(it)?.basic())).transpose()
    }

    /// What the nodes' runtimes log in with.
    pub fn nodes_credentials(&self) -> Option<&Credentials> {
        self.credentials().filter(|_| self.nodes_log_in)
    }

    /// The reference of an image in this registry, by tag.
    pub fn reference(&self, image: &Image) -> String {
        format!("{}/{}:{}", self.authority, image.repository, image.tag)
    }

    /// Starts the registry's program anew; its front has stayed.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart().await?;
        self.process.wait_for_port(SERVER.port()).await
    }

    /// Pushes an image, past the front.
    pub async fn push(&self, image: &Image) -> Result<()> {
        self.pusher(&image.repository)?.push(image).await
    }

    /// Pushes the index of images that were pushed.
    pub async fn push_index(&self, index: &Index) -> Result<()> {
        self.pusher(&index.repository)?.push_index(index).await
    }

    fn pusher(&self, repository: &str) -> Result<Pusher<'_>> {
        let owner = self.credentials().map(|it| it.user.as_str());
        let authorization = match owner {
            Some(_) => self.authorization(owner, repository)?,
            None => None,
        };
        Ok(Pusher { host: &self.host, base: format!("http://{SERVER}"), authorization })
    }
}

/// The host name of a registry's token service. Of the registry's own domain, so that it may be shown
/// credentials.
fn tokens_name(registry: &str) -> String {
    format!("auth.{registry}")
}

async fn start_tokens(
    lab: &mut Lab,
    name: &str,
    ca: Option<&Authority>,
    users: &Users,
) -> Result<TokenService> {
    let host = lab.host(&format!("{name}-auth")).await?;
    let audience = format!("{name}.test");
    let names = [tokens_name(&audience)];
    lab.alias(&names[0], &host)?;
    let tls = ca.map(|it| it.server(&names, host.address().into())).transpose()?;
    let port = if ca.is_some() { TLS_PORT } else { 80 };
    TokenService::start((&host, port), tls, &audience, users.all(), users.rights.clone())
}

/// The registry's settings; JSON is YAML.
fn settings(host: &Host, auth: &Value) -> Value {
    json!({
        "version": 0.1,
        "log": { "level": "info" },
        "storage": {
            "filesystem": { "rootdirectory": host.dir().join("data") },
            "delete": { "enabled": true },
        },
        // Upload addresses without a host, since clients come by several names.
        "http": { "addr": SERVER.to_string(), "relativeurls": true },
        "auth": auth,
    })
}

fn token_auth(name: &str, tls: bool, tokens: &TokenService) -> Value {
    let scheme = if tls { "https" } else { "http" };
    json!({ "token": {
        "realm": format!("{scheme}://{}/token", tokens_name(name)),
        "service": name,
        "issuer": ISSUER,
        "rootcertbundle": tokens.certificate(),
    } })
}

async fn password_auth(host: &Host, users: &[Credentials]) -> Result<Value> {
    let file = host.dir().join("htpasswd");
    std::fs::write(&file, "")?;
    for Credentials { user, password } in users {
        let add = Launch::new("htpasswd").arg("-Bb").arg(&file).args([user, password]);
        add.run(Duration::from_secs(30)).await?;
    }
    Ok(json!({ "htpasswd": { "realm": "lab", "path": file } }))
}
