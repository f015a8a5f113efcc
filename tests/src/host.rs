//! One machine of the lab: a network namespace with an address, a directory and the lab's host names.
//!
//! Two ways lead inside. Programs are started through a script, `enter`, that enters the network namespace
//! only: unlike `ip netns exec` it keeps `/sys/fs/cgroup`, without which container runtimes do not start.
//! They get a mount namespace of their own, with the lab's names bound over `/etc/hosts`; so no name is looked
//! up outside, and whatever a runtime mounts is gone with it. Sockets of this very process are opened on a
//! thread that has entered the namespace for that one call; a socket stays where it was opened.

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::command::Launch;
use crate::link::{INTERFACE, Link, Mbit, Traffic};
use crate::process::Process;

const DIAL_DEADLINE: Duration = Duration::from_secs(5);

/// A machine of the lab. Clones are handles of the same machine; it goes when its lab goes.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    link: Link,
    dir: PathBuf,
    hosts_file: PathBuf,
}

/// Enters the network and binds the names, in a mount namespace of the program's own.
const ENTER: &str = r#"#!/bin/sh
exec nsenter --net='NETWORK' -- unshare --mount --propagation slave -- \
    sh -euc 'mount --bind "$0" /etc/hosts; exec "$@"' 'HOSTS' "$@"
"#;

impl Host {
    /// Makes and connects the machine. `dir` is its own, `hosts_file` the whole lab's.
    pub(crate) async fn create(name: &str, link: Link, dir: PathBuf, hosts_file: PathBuf) -> Result<Self> {
        // It is there already where a disk is mounted below it.
        std::fs::create_dir_all(&dir).with_context(|| format!("{name}: cannot make {}", dir.display()))?;
        link.create().await.with_context(|| format!("{name}: cannot be connected"))?;
        let host = Self(Arc::new(Inner { name: name.into(), link, dir, hosts_file }));
        host.write_enter().with_context(|| format!("{name}: no script to enter it"))?;
        Ok(host)
    }

    /// Its name, which is also its host name inside the lab.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address in the lab's network.
    pub fn address(&self) -> Ipv4Addr {
        self.0.link.address()
    }

    /// Its directory, for the state and logs of what runs on it.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// A name that no other machine has, of other labs neither.
    pub(crate) fn namespace(&self) -> &str {
        &self.0.link.namespace
    }

    // === Programs ===

    /// A script that runs its arguments as a program on this machine.
    pub fn enter(&self) -> PathBuf {
        self.dir().join("enter")
    }

    /// The launch that runs `launch` on this machine, [bound to this process](Launch::bound_to_us).
    fn inside(&self, launch: &Launch) -> Launch {
        // Read by `sh`, not executed: the kernel refuses to execute a file just written while any other
        // thread's child, between fork and exec, still holds it open.
        launch.wrapped_by(Launch::new("sh").arg(self.enter())).bound_to_us()
    }

    fn write_enter(&self) -> io::Result<()> {
        let script = ENTER
            .replace("NETWORK", &format!("/run/netns/{}", self.0.link.namespace))
            .replace("HOSTS", &self.0.hosts_file.to_string_lossy());
        std::fs::write(self.enter(), script)?;
        std::fs::set_permissions(self.enter(), Permissions::from_mode(0o755))
    }

    /// Runs a program to its end on this machine; see [`Launch::run`].
    pub async fn run(&self, launch: Launch, deadline: Duration) -> Result<String> {
        self.inside(&launch).run(deadline).await.with_context(|| format!("on {}", self.name()))
    }

    /// Starts a program that stays, logging to `<name>.log` in the machine's directory.
    pub fn start(&self, name: &str, launch: Launch) -> Result<Process> {
        Process::start(self, name, self.inside(&launch))
    }

    // === Sockets of this process ===

    /// Opens something inside the machine's network.
    pub(crate) fn within<T: Send>(&self, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let namespace = std::fs::File::open(Path::new("/run/netns").join(&self.0.link.namespace))?;
        let entered = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            open()
        };
        std::thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Listens on the machine's port, on all its addresses.
    pub fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let socket = self.within(TcpSocket::new_v4)?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        socket.listen(1024)
    }

    /// Connects from the machine to an address of the lab, within a few seconds.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.within(TcpSocket::new_v4)?;
        timeout(DIAL_DEADLINE, socket.connect(to)).await?
    }

    /// The address of a host name of the lab, or of the literal address.
    pub(crate) fn resolve(&self, name: &str) -> io::Result<IpAddr> {
        if let Ok(address) = name.parse() {
            return Ok(address);
        }
        let names = std::fs::read_to_string(&self.0.hosts_file)?;
        names
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(_, known)| *known == name)
            .and_then(|(address, _)| address.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name}: no host of this lab")))
    }

    // === Link ===

    /// Gives the machine a further address, for those who are told [the way](Host::reach).
    pub async fn take_address(&self, address: Ipv4Addr) -> Result<()> {
        self.0.link.add_address(address).await
    }

    /// Lets the machine reach an address outside the lab's network on its link.
    pub async fn reach(&self, address: Ipv4Addr) -> Result<()> {
        self.0.link.add_route(address).await
    }

    /// The machine's place, for others to know for good.
    pub(crate) async fn introduction(&self) -> Result<String> {
        let hardware_address = self.0.link.hardware_address().await?;
        Ok(format!("neigh replace {} lladdr {hardware_address} dev {INTERFACE}\n", self.address()))
    }

    /// Takes in such introductions.
    pub(crate) async fn know(&self, introductions: &str) -> Result<()> {
        let file = self.dir().join("introductions");
        std::fs::write(&file, introductions)?;
        self.0.link.batch(&file).await
    }

    /// Limits what the machine can send (`up`) and receive (`down`).
    pub async fn shape(&self, up: Mbit, down: Mbit) -> Result<()> {
        self.0.link.shape(up, down).await
    }

    /// Lets the machine's link be as fast as it can again.
    pub async fn unshape(&self) -> Result<()> {
        self.0.link.unshape().await
    }

    /// What went over the machine's link so far.
    pub async fn traffic(&self) -> Result<Traffic> {
        self.0.link.traffic().await
    }

    /// Pulls the machine's cable.
    pub async fn unplug(&self) -> Result<()> {
        self.0.link.plug(false).await
    }

    /// Plugs the cable in again.
    pub async fn plug(&self) -> Result<()> {
        self.0.link.plug(true).await
    }

    /// Makes the machine deaf to others: their packets vanish, and no error tells them.
    pub async fn ignore(&self, others: &[Host]) -> Result<()> {
        let addresses: Vec<Ipv4Addr> = others.iter().map(Host::address).collect();
        self.0.link.drop_packets_from(&addresses).await
    }

    /// Ends every [`Host::ignore`] of this machine.
    pub async fn listen_to_all(&self) -> Result<()> {
        self.0.link.accept_packets().await
    }
}
