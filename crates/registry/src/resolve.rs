//! Names to addresses, without those that must not be reached because of who gave the name.
//!
//! The connection is made to the very addresses that were judged here: a second look-up could give
//! another answer. Address literals never come this way; [`redirect`](crate::redirect) judges them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

use crate::network::Network;
use crate::redirect::NamedHosts;

/// The system's resolver behind [`NamedHosts::judge`].
#[derive(Clone)]
pub(crate) struct JudgingResolver {
    system: GaiResolver,
    named: NamedHosts,
    from: Network,
}

impl JudgingResolver {
    /// For the names that somebody in the network `from` gives.
    pub(crate) fn new(named: NamedHosts, from: Network) -> Self {
        Self { system: GaiResolver::new(), named, from }
    }
}

impl Service<Name> for JudgingResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(ctx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let host = name.as_str().to_owned();
        let (named, from) = (self.named.clone(), self.from);
        let found = self.system.call(name);
        Box::pin(async move {
            let (mut allowed, mut refused) = (Vec::new(), None);
            for address in found.await? {
                match named.judge(from, &host, address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(it) => refused = Some(it),
                }
            }
            match refused {
                Some(refused) if allowed.is_empty() => Err(io::Error::other(refused)),
                _ => Ok(allowed.into_iter()),
            }
        })
    }
}
