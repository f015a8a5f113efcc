//! Links of the lab: how fast they are, what went over them, and the commands that make them.
//!
//! A lab is a star. The hub namespace holds a bridge; each host is a namespace whose `eth0` is one end
//! of a veth pair, the other end hangs in the bridge. A token bucket on either end shapes one direction
//! each: on the host's end what the host sends, on the hub's end what it receives. (Delay and loss would
//! need netem, which many kernels lack.) All interfaces live inside the lab's own namespaces, so labs
//! can use equal addresses and names at the same time.

use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::command::Launch;

const BRIDGE: &str = "br0";
/// The interface of every host.
pub(crate) const INTERFACE: &str = "eth0";
/// A namespace would take it from the machine that the lab is on, and one that ignores losses fills the short
/// queues of slow links with what is sent again. Cubic, the default of most systems, behaves as reno does where
/// links are as slow and as short as here; reno every machine lets a namespace have.
const CONGESTION_CONTROL: &str = "net.ipv4.tcp_congestion_control=reno";
const DEADLINE: Duration = Duration::from_secs(30);

/// A link rate in megabits per second, as network people and `tc` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mbit(pub u32);

impl FromStr for Mbit {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.strip_suffix("mbit").unwrap_or(text);
        let rate = number.parse().with_context(|| format!("{text:?} is not a link rate such as 200mbit"))?;
        ensure!(rate > 0, "{text:?} is not a link rate: it must be above 0");
        Ok(Self(rate))
    }
}

/// Bytes that crossed a host's link since the lab started, in both cases with all headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes the host sent.
    pub sent: u64,
    /// Bytes the host received.
    pub received: u64,
}

/// Where a host hangs: its namespace, the hub's, and its number in the star, counted from 0.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) namespace: String,
    pub(crate) hub: String,
    pub(crate) number: u16,
    /// The longest packet, in bytes.
    pub(crate) mtu: u16,
}

/// Makes the hub namespace with its bridge.
pub(crate) async fn create_hub(hub: &str) -> Result<()> {
    ip(&format!("netns add {hub}")).await?;
    ip(&format!("-n {hub} link add {BRIDGE} type bridge")).await?;
    ip(&format!("-n {hub} link set {BRIDGE} up")).await
}

impl Link {
    /// The host's address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        let [high, low] = [self.number / 250, self.number % 250 + 2];
        Ipv4Addr::new(10, 77, high as u8, low as u8)
    }

    /// The host's end in the bridge.
    fn port(&self) -> String {
        format!("v{}", self.number)
    }

    /// Makes the namespace and connects it.
    pub(crate) async fn create(&self) -> Result<()> {
        let Self { namespace, hub, mtu, .. } = self;
        let (port, address) = (self.port(), self.address());
        ip(&format!("netns add {namespace}")).await?;
        let peer = format!("peer name {INTERFACE} mtu {mtu} netns {namespace}");
        ip(&format!("link add {port} mtu {mtu} netns {hub} type veth {peer}")).await?;
        ip(&format!("-n {hub} link set {port} master {BRIDGE} up")).await?;
        ip(&format!("-n {namespace} addr add {address}/16 dev {INTERFACE}")).await?;
        ip(&format!("-n {namespace} link set {INTERFACE} up")).await?;
        ip(&format!("-n {namespace} link set lo up")).await?;
        ip(&format!("netns exec {namespace} sysctl --quiet --write {CONGESTION_CONTROL}")).await
    }

    /// Gives the host a further address.
    pub(crate) async fn add_address(&self, address: Ipv4Addr) -> Result<()> {
        ip(&format!("-n {} addr add {address}/32 dev {INTERFACE}", self.namespace)).await
    }

    /// Tells the host that an address is on its link.
    pub(crate) async fn add_route(&self, to: Ipv4Addr) -> Result<()> {
        ip(&format!("-n {} route add {to}/32 dev {INTERFACE}", self.namespace)).await
    }

    /// The host's address on the wire.
    pub(crate) async fn hardware_address(&self) -> Result<String> {
        let text = words("ip", &format!("-n {} -j link show {INTERFACE}", self.namespace)).await?;
        let [shown]: [ShownAddress; 1] =
            serde_json::from_str(&text).context("ip -j link: unexpected form")?;
        Ok(shown.address)
    }

    /// Carries out a file of commands for `ip` inside the namespace.
    pub(crate) async fn batch(&self, file: &Path) -> Result<()> {
        let launch = Launch::new("ip").args(["-n", &self.namespace, "-batch"]).arg(file);
        launch.run(DEADLINE).await.map(drop)
    }

    /// Limits what the host can send (`up`) and receive (`down`).
    pub(crate) async fn shape(&self, up: Mbit, down: Mbit) -> Result<()> {
        shape(&self.namespace, INTERFACE, up).await?;
        shape(&self.hub, &self.port(), down).await
    }

    /// Ends every [`Link::shape`].
    pub(crate) async fn unshape(&self) -> Result<()> {
        unshape(&self.namespace, INTERFACE).await?;
        unshape(&self.hub, &self.port()).await
    }

    /// Takes the link down or up again, as a pulled cable does.
    pub(crate) async fn plug(&self, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        ip(&format!("-n {} link set {} {state}", self.hub, self.port())).await
    }

    /// Reads the link's counters.
    pub(crate) async fn traffic(&self) -> Result<Traffic> {
        let text = words("ip", &format!("-n {} -s -j link show {}", self.hub, self.port())).await?;
        let [shown]: [ShownLink; 1] =
            serde_json::from_str(&text).context("ip -s -j link: unexpected form")?;
        // What the hub's end received is what the host sent.
        Ok(Traffic { sent: shown.stats64.rx.bytes, received: shown.stats64.tx.bytes })
    }

    /// Drops, without a word, every packet that arrives from `others`.
    pub(crate) async fn drop_packets_from(&self, others: &[Ipv4Addr]) -> Result<()> {
        let sources: Vec<String> = others.iter().map(Ipv4Addr::to_string).collect();
        self.iptables(&format!("-A INPUT -s {} -j DROP", sources.join(","))).await
    }

    /// Lets all packets in again.
    pub(crate) async fn accept_packets(&self) -> Result<()> {
        self.iptables("-F INPUT").await
    }

    async fn iptables(&self, rule: &str) -> Result<()> {
        let args = format!("--net=/run/netns/{} iptables --wait 10 {rule}", self.namespace);
        words("nsenter", &args).await.map(drop)
    }
}

#[derive(Deserialize)]
struct ShownLink {
    stats64: ShownStats,
}

#[derive(Deserialize)]
struct ShownAddress {
    address: String,
}

#[derive(Deserialize)]
struct ShownStats {
    rx: ShownCounter,
    tx: ShownCounter,
}

#[derive(Deserialize)]
struct ShownCounter {
    bytes: u64,
}

async fn shape(namespace: &str, interface: &str, rate: Mbit) -> Result<()> {
    // A bucket of 4 ms carries the rate at this kernel's timer; below 16 kB a full segment would not fit.
    let burst = (rate.0 * 500).max(16_000);
    let args = format!(
        "-n {namespace} qdisc replace dev {interface} root tbf rate {}mbit burst {burst} latency 50ms",
        rate.0
    );
    words("tc", &args).await.map(drop)
}

async fn unshape(namespace: &str, interface: &str) -> Result<()> {
    words("tc", &format!("-n {namespace} qdisc del dev {interface} root")).await.map(drop)
}

async fn ip(args: &str) -> Result<()> {
    words("ip", args).await.map(drop)
}

async fn words(program: &str, args: &str) -> Result<String> {
    Launch::new(program).args(args.split(' ')).run(DEADLINE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_tc_writes_them() {
        assert_eq!("200mbit".parse::<Mbit>().ok(), Some(Mbit(200)));
        assert_eq!("50".parse::<Mbit>().ok(), Some(Mbit(50)));
        for bad in ["", "mbit", "0mbit", "-1", "2gbit"] {
            assert!(bad.parse::<Mbit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_go_on_past_one_octet() {
        let link = |number| Link { namespace: String::new(), hub: String::new(), number, mtu: 1500 };
        assert_eq!(link(0).address().to_string(), "10.77.0.2");
        assert_eq!(link(249).address().to_string(), "10.77.0.251");
        assert_eq!(link(250).address().to_string(), "10.77.1.2");
    }
}
