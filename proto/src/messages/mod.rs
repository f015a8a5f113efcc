//! What the services say to each other, in types that cannot be malformed.

mod certificates;
mod fleet;
mod gateway;
mod jobs;
mod peer;
mod regional;
mod remove;
mod scheduler;
mod store;

pub use certificates::*;
pub use fleet::*;
pub use gateway::*;
pub use jobs::*;
pub use peer::*;
pub use regional::*;
pub use remove::*;
pub use scheduler::*;
pub use store::*;
