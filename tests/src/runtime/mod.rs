//! Real container runtimes on the lab's nodes, each pulling from a registry directly or through a mirror.

pub mod containerd;
pub mod cri;
pub mod docker;
pub mod podman;
pub mod skopeo;

use std::time::Duration;

use crate::registry::Registry;

/// How long a pull may take; the tests' own claims are about shares and counts, not about this.
pub(crate) const PULL_DEADLINE: Duration = Duration::from_secs(300);

/// Where a sidecar's mirror listens on each node.
pub const MIRROR: &str = "http://127.0.0.1:65001";

/// `registries.conf` for Podman, Skopeo and their kin.
pub(crate) fn registries_conf(registry: &Registry, mirror: Option<&str>) -> String {
    let insecure = registry.ca().is_none();
    let mut conf = format!("[[registry]]\nlocation = {:?}\ninsecure = {insecure}\n", registry.authority());
    if let Some(mirror) = mirror {
        let location = mirror.trim_start_matches("http://");
        conf += &format!("[[registry.mirror]]\nlocation = {location:?}\ninsecure = true\n");
    }
    conf
}
