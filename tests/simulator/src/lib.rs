//! A fleet in one process: the swarm's own machines on simulated links and a simulated clock.
//!
//! What a thousand machines would do cannot be tried on one, but it can be worked out: bytes become
//! lengths, links become queues, time becomes a number. The decisions are not worked out anew. They are
//! those of `shoal_swarm::fetch::Fetch` and `shoal_swarm::table::Table`, the code that sidecars and
//! schedulers run; a test replays every run through them and finds nothing else.
//!
//! What the services do around their machines is done here alike, with their constants: news and reports
//! travel in batches, uploads are bounded, the dead are silent. The [`network`] is a model and says how far
//! it errs. Not simulated is the time that processors and disks need.
//!
//! Knows nothing of: sockets, clocks, files, bytes, and which piece or neighbour would be a good choice.

mod bound;
mod journal;
mod network;
mod outcome;
mod plot;
mod queue;
mod recording;
mod simulation;
mod world;

pub use bound::Bound;
pub use journal::{Asked, Entry, Journal};
pub use outcome::Outcome;
pub use plot::svg;
pub use recording::Recording;
pub use simulation::{Finished, Simulation};
pub use world::{Fault, Site, World};
