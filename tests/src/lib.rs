//! The lab: a fleet on one machine, out of real parts.
//!
//! Each node is a network namespace with its own shaped link to a bridge; real registries, container
//! runtimes and the Shoal binaries run inside, so a test sees what a fleet would see: who sent how many
//! bytes over which link, what a runtime does when a mirror stops answering, what is left after a crash.
//! A test reads as a script:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use shoal_tests::image::{Image, ImageSpec};
//! use shoal_tests::lab::{Lab, LabSpec};
//! use shoal_tests::registry::RegistrySpec;
//! use shoal_tests::runtime::containerd::Containerd;
//!
//! let mut lab = Lab::start("four-nodes", LabSpec::nodes(4)).await?;
//! let registry = lab.registry(RegistrySpec::plain()).await?;
//! let image = Image::build(&ImageSpec::new("team/app", 16 << 20))?;
//! registry.push(&image).await?;
//! let node = Containerd::start(&lab.nodes()[0]).await?;
//! node.go_direct(&registry)?;
//! node.pull(&registry, &image).await?;
//! node.check(&registry, &image).await?;
//! # Ok(()) }
//! ```
//!
//! It needs root and the programs that `cargo xtask test` installs. Several labs run side by side, and
//! what a killed run left behind is swept by the next one.
//!
//! Knows nothing of: how Shoal decides anything; it starts the binaries and watches them from outside.

pub mod browser;
pub mod capture;
pub mod cgroup;
pub mod collector;
pub mod command;
pub mod counting;
pub mod crowd;
pub mod disk;
pub mod fault;
pub mod fleet;
pub mod harm;
pub mod host;
pub mod hostile;
pub mod http;
pub mod image;
pub mod intruder;
pub mod lab;
pub mod liar;
pub mod link;
pub mod management;
pub mod member;
pub mod preheat;
pub mod private;
pub mod process;
pub mod prometheus;
pub mod push;
pub mod raw;
pub mod redis;
pub mod regions;
pub mod registry;
pub mod rights;
pub mod runtime;
pub mod secrets;
pub mod sent;
mod server;
pub mod shoal;
pub mod slow;
pub mod stored;
pub mod supervised;
pub mod sweep;
pub mod tls;
pub mod tokens;
pub mod wait;
