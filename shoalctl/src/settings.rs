//! The settings of this node's sidecar, read as the sidecar reads them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use shoal_ops::settings::Reader;
use shoal_ops::telemetry::LogSettings;
use shoal_sidecar::settings::{DEFAULT, Settings};
use url::Url;

use crate::cli::{NODE, OnNode};

/// Where a sidecar's mirror is unless its settings say otherwise.
const MIRROR: ([u8; 4], u16) = ([127, 0, 0, 1], 65001);

/// What the sidecar is told, as far as it could be read.
pub struct NodeSettings {
    /// The sidecar's own; what is a mistake has its default here.
    pub sidecar: Settings,
    /// Where its admin listener is.
    pub admin: SocketAddr,
    /// All that is wrong with them.
    pub mistakes: Option<String>,
}

/// Why there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoSettings {
    /// There is no such file.
    Missing,
    /// It cannot be read.
    Unreadable(String),
}

impl NodeSettings {
    /// Reads a settings document; `env` looks a variable up.
    pub fn of(text: &str, env: impl Fn(&str) -> Option<String> + 'static) -> Self {
        let reader = Reader::new(text, DEFAULT, env);
        let sidecar = Settings::read(&reader);
        let admin = reader.get("admin.listen");
        LogSettings::read(&reader);
        reader.get::<Duration>("shutdownGrace");
        let mistakes = reader.finish().err().map(|it| it.to_string());
        Self { sidecar, admin, mistakes }
    }

    /// Reads the settings file of the node.
    ///
    /// # Errors
    /// Why there are none.
    pub fn load(on: &OnNode) -> Result<Self, NoSettings> {
        let text = std::fs::read_to_string(below(&on.root, &on.settings)).map_err(|it| match it.kind() {
            io::ErrorKind::NotFound => NoSettings::Missing,
            _ => NoSettings::Unreadable(it.to_string()),
        })?;
        Ok(Self::of(&text, |name| std::env::var(name).ok()))
    }
}

/// Where runtimes reach the mirror: where the settings have it, or where it is unless told otherwise.
pub fn mirror(settings: Option<&NodeSettings>) -> SocketAddr {
    settings.map_or_else(|| SocketAddr::from(MIRROR), |it| reached(it.sidecar.proxy.listen))
}

/// Where the sidecar's admin listener is: where it was said to be, or where its settings have it.
#[expect(clippy::expect_used, reason = "input cannot reach it")]
pub fn node(said: Option<&Url>, settings: Option<&NodeSettings>) -> Url {
    let configured = settings.and_then(|it| Url::parse(&format!("http://{}", reached(it.admin))).ok());
    said.cloned().or(configured).unwrap_or_else(|| Url::parse(NODE).expect("the default is a URL"))
}

/// A path of the node, where its file system is at `root`; one that is relative is the caller's own.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix("/").map_or_else(|_| path.to_owned(), |it| root.join(it))
}

/// The address at which this machine reaches who listens there: one that stands for all is reached over loopback.
fn reached(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_the_sidecar_reads_them() {
        let good = NodeSettings::of(
            "{security: {mtls: false}, gateways: [], proxy: {listen: '0.0.0.0:7001'}, admin: {listen: '[::]:7011'}}",
            |_| None,
        );
        assert_eq!(good.mistakes, None);
        assert_eq!(mirror(Some(&good)).to_string(), "127.0.0.1:7001");
        assert_eq!(node(None, Some(&good)).as_str(), "http://[::1]:7011/");
        assert_eq!(mirror(None), mirror(Some(&NodeSettings::of("", |_| None))));
        let bad = NodeSettings::of("{log: {level: loud}, nane: x}", |_| None);
        let mistakes = bad.mistakes.unwrap();
        assert!(mistakes.contains("log.level") && mistakes.contains("nane is not a setting"), "{mistakes}");
        assert_eq!(bad.admin.to_string(), "127.0.0.1:65011", "what is wrong elsewhere leaves it");
    }

    #[test]
    fn the_node_is_where_it_is_said_to_be() {
        let said = Url::parse("http://127.0.0.1:1").unwrap();
        assert_eq!(node(Some(&said), None), said);
        assert_eq!(node(None, None).as_str(), "http://127.0.0.1:65011/");
    }

    #[test]
    fn a_container_sees_the_node_below_a_directory() {
        let check = |root: &str, path: &str, expected: &str| {
            assert_eq!(below(root.as_ref(), path.as_ref()), Path::new(expected));
        };
        check("/", "/etc/shoal/sidecar.yaml", "/etc/shoal/sidecar.yaml");
        check("/host", "/etc/shoal/sidecar.yaml", "/host/etc/shoal/sidecar.yaml");
        check("/host", "sidecar.yaml", "sidecar.yaml");
    }
}
