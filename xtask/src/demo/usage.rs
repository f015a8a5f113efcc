//! How to use what `--keep` leaves running.

use std::fmt::{self, Display};

use crate::region::fleet::Fleet;
use crate::region::source::Source;

/// The text for people; addresses and files to copy.
pub(super) struct Usage<'a> {
    pub(super) source: &'a Source,
    pub(super) fleet: &'a Fleet,
}

impl Display for Usage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, fleet } = self;
        writeln!(f, "\n           mirror                  health and metrics: /readyz, /metrics")?;
        for node in &fleet.nodes {
            let (mirror, admin) = (format!("http://{}", node.mirror), node.sidecar.admin);
            writeln!(f, "{:<9}  {mirror:<22}  http://{admin}", node.name)?;
        }
        for (name, service) in [("gateway", fleet.gateway), ("scheduler", fleet.scheduler)] {
            writeln!(f, "{name:<9}  {:22}  http://{}", "", service.admin)?;
        }
        // There is at least one node.
        let Some(node) = fleet.nodes.first() else { return Ok(()) };
        let (mirror, registry, url) = (node.mirror, &source.registry, &source.url);
        write!(
            f,
            r#"
to pull by hand, on {name}:
  curl 'http://{mirror}{manifest}'

for containerd, in certs.d/{registry}/hosts.toml:
  server = "{url}"
  [host."http://{mirror}"]
    capabilities = ["pull", "resolve"]
and then:
  ctr images pull --hosts-dir /etc/containerd/certs.d {source}

Ctrl-C ends it all.
"#,
            name = node.name,
            manifest = source.manifest_path(),
        )
    }
}
