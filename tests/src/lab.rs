//! A lab: hub, nodes and further hosts, from start to the last trace removed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;

use crate::host::Host;
use crate::link::{Link, Mbit, create_hub};
use crate::registry::{Registry, RegistrySpec};
use crate::sweep;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Unix socket paths end at 107 bytes, and runtimes add much of their own to the directory.
const LONGEST_NAME: usize = 24;

/// What a lab starts with.
#[derive(Clone, Copy, Debug)]
pub struct LabSpec {
    /// How many nodes, named `node1`, `node2`...
    pub nodes: u16,
    /// The rate of each node's link, either way; `None` for as fast as the machine is.
    pub rate: Option<Mbit>,
    /// The longest packet that links carry, in bytes.
    pub mtu: u16,
}

impl LabSpec {
    /// Nodes with unshaped links.
    pub fn nodes(nodes: u16) -> Self {
        Self { nodes, rate: None, mtu: 1500 }
    }

    /// The same with the long packets of data centres' networks. Of a processor's time most goes by packets,
    /// so that a machine carries several times as many nodes.
    pub fn with_jumbo_frames(self) -> Self {
        Self { mtu: 9000, ..self }
    }

    /// The same with every node's link shaped.
    pub fn at(self, rate: Mbit) -> Self {
        Self { rate: Some(rate), ..self }
    }
}

/// A running lab. Dropping it kills everything in it and removes every trace.
#[derive(Debug)]
pub struct Lab {
    id: String,
    dir: PathBuf,
    nodes: Vec<Host>,
    n_hosts: u16,
    rate: Option<Mbit>,
    mtu: u16,
}

impl Lab {
    /// Sweeps what killed runs left, then makes the hub and the nodes. `name` (at most 24 bytes) appears
    /// in the lab's directory. Must be called as root.
    pub async fn start(name: &str, spec: LabSpec) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "lab {name}: network namespaces need root");
        ensure!(
            name.len() <= LONGEST_NAME,
            "lab {name}: {} bytes of name, {LONGEST_NAME} allowed",
            name.len()
        );
        sweep::sweep();

        let id = sweep::lab_id(std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = sweep::labs_dir().join(format!("{id}-{name}"));
        std::fs::create_dir(&dir).with_context(|| format!("lab {name}: cannot make {}", dir.display()))?;
        // From here on dropping the lab cleans up, also when the rest of the start fails.
        let mut lab = Self { id, dir, nodes: Vec::new(), n_hosts: 0, rate: spec.rate, mtu: spec.mtu };
        std::fs::write(lab.hosts_file(), "127.0.0.1 localhost\n")?;
        create_hub(&lab.hub()).await?;
        for number in 1..=spec.nodes {
            let node = lab.host(&format!("node{number}")).await?;
            if let Some(rate) = spec.rate {
                node.shape(rate, rate).await?;
            }
            lab.nodes.push(node);
        }
        Ok(lab)
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> &[Host] {
        &self.nodes
    }

    /// The usual rate of the nodes' links; that of further hosts is not limited.
    pub fn rate(&self) -> Option<Mbit> {
        self.rate
    }

    /// The lab's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a further machine, with an unshaped link.
    pub async fn host(&mut self, name: &str) -> Result<Host> {
        let (namespace, number) = (format!("{}-{name}", self.id), self.n_hosts);
        let link = Link { namespace, hub: self.hub(), number, mtu: self.mtu };
        self.n_hosts += 1;
        let host = Host::create(name, link, self.dir.join(name), self.hosts_file()).await?;
        self.alias(name, &host)?;
        Ok(host)
    }

    /// Makes a name lead to a machine, for all programs of the lab, running ones included.
    pub fn alias(&mut self, name: &str, host: &Host) -> Result<()> {
        // Appended in place: programs hold a bind mount of this very inode.
        let mut names = std::fs::OpenOptions::new().append(true).open(self.hosts_file())?;
        writeln!(names, "{} {name}", host.address()).context("cannot write the lab's host names")
    }

    /// Adds a machine with a real registry on it.
    pub async fn registry(&mut self, spec: RegistrySpec) -> Result<Registry> {
        Registry::start(self, spec).await
    }

    /// Lets all of these machines know each other's places for good. For large labs whose machines all talk to each
    /// other: of what machines learn by asking, the kernel keeps about a thousand places, of all labs together,
    /// and nobody can be reached any more when these are used up.
    pub async fn introduce(&self, hosts: &[Host]) -> Result<()> {
        let introductions = try_join_all(hosts.iter().map(Host::introduction)).await?.concat();
        try_join_all(hosts.iter().map(|it| it.know(&introductions))).await?;
        Ok(())
    }

    /// Splits the network: the two sides no longer hear each other, and no error tells them.
    pub async fn partition(&self, one: &[Host], other: &[Host]) -> Result<()> {
        for host in one {
            host.ignore(other).await?;
        }
        for host in other {
            host.ignore(one).await?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-bridge", self.id)
    }

    fn hosts_file(&self) -> PathBuf {
        self.dir.join("hosts")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        sweep::remove(&self.id, &self.dir);
    }
}
