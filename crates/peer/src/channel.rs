//! How gRPC reaches another part of the region.
//!
//! A machine that lost its power answers nothing, not even a reset. HTTP/2 pings tell it from one that has
//! nothing to say, so that a stream which is silent for minutes needs no deadline of its own.

use std::time::Duration;

use tonic::transport::{Endpoint, Error};

/// How often a connection is asked for a sign of life, and how long the answer may take.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);

/// An endpoint for `scheme://host:port`, to be connected by a dialer's connector.
pub(crate) fn endpoint(address: String) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(address)?.http2_keep_alive_interval(PING).keep_alive_timeout(PONG))
}
