//! Names to addresses, without the addresses that a redirect must not reach.
//!
//! The connection is made to the very addresses that were judged here: a second look-up could give
//! another answer. Address literals never come this way; `redirect` judges them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

use crate::redirect::{NamedHosts, Refused};

/// The system's resolver behind [`NamedHosts::may_connect`].
#[derive(Clone)]
pub(crate) struct JudgingResolver {
    system: GaiResolver,
    named: NamedHosts,
}

impl JudgingResolver {
    pub(crate) fn new(named: NamedHosts) -> Self {
        Self { system: GaiResolver::new(), named }
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
        let named = self.named.clone();
        let found = self.system.call(name);
        Box::pin(async move {
            let addresses: Vec<_> = found.await?.filter(|it| named.may_connect(&host, it.ip())).collect();
            if addresses.is_empty() {
                return Err(io::Error::other(Refused::InnerAddress));
            }
            Ok(addresses.into_iter())
        })
    }
}
