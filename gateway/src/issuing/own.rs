//! The gateway's own certificate, where it is the authority: issued at the start and again at two thirds of
//! its life, or when the clock is set to before it was made. Handshakes take the newest; no connection notices.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use shoal_identity::{Ca, CaError, Grant, Keychain, Role, SpiffeId};
use shoal_model::NodeId;
use shoal_ops::Context;
use shoal_ops::wall_clock::wait_outside;
use tokio::time::sleep;

/// How long to wait after a certificate could not be made.
const RETRY: Duration = Duration::from_secs(10);

/// What the gateway is called, and where it is.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Its name within the region.
    pub node: NodeId,
    /// The address that nodes are told.
    pub address: IpAddr,
    /// Host names and addresses under which runtimes reach it.
    pub hosts: Vec<String>,
}

impl Gateway {
    /// What its certificate says.
    pub(super) fn grant(self, ca: &Ca, lives: Duration) -> anyhow::Result<Grant> {
        let name = self.node.as_str();
        let id = SpiffeId::new(ca.domain().clone(), Role::Gateway, name);
        let id = id.with_context(|| format!("node.id: {name:?} cannot stand in a certificate"))?;
        let mut grant = Grant { id, addresses: vec![self.address], hosts: Vec::new(), lives };
        for host in self.hosts {
            match host.trim_start_matches('[').trim_end_matches(']').parse() {
                Ok(address) => grant.addresses.push(address),
                Err(_) => grant.hosts.push(host),
            }
        }
        Ok(grant)
    }
}

/// Issues the certificate, and renews it as a task of the process.
pub(super) fn keep(ca: Arc<Ca>, grant: Grant, ctx: &Context) -> Result<Keychain, CaError> {
    let keychain = Keychain::empty();
    let fresh = issue(&ca, &grant, &keychain)?;
    let (kept, stopping) = (keychain.clone(), ctx.tasks.stopping());
    ctx.tasks.spawn_infallible("certificate", async move {
        stopping.run_until_cancelled(renew(ca, grant, kept, fresh)).await;
    });
    Ok(keychain)
}

async fn renew(ca: Arc<Ca>, grant: Grant, keychain: Keychain, mut fresh: Range<SystemTime>) {
    loop {
        wait_outside(&fresh).await;
        match issue(&ca, &grant, &keychain) {
            Ok(next) => {
                tracing::info!(id = %grant.id, "certificate renewed");
                fresh = next;
            }
            Err(error) => {
                tracing::warn!(id = %grant.id, %error, "certificate not renewed; the old one stays");
                sleep(RETRY).await;
            }
        }
    }
}

/// Puts a new certificate to use; returns at which times no other is due.
fn issue(ca: &Ca, grant: &Grant, keychain: &Keychain) -> Result<Range<SystemTime>, CaError> {
    let now = SystemTime::now();
    keychain.replace(ca.own(now, grant)?);
    Ok(now..now + grant.lives * 2 / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca() -> Ca {
        Ca::create("shoal.local".parse().unwrap()).unwrap().0
    }

    fn gateway(node: &str, hosts: &[&str]) -> Gateway {
        let hosts = hosts.iter().map(|it| (*it).to_owned()).collect();
        Gateway { node: NodeId::new(node), address: [10, 0, 0, 1].into(), hosts }
    }

    #[tokio::test]
    async fn the_certificate_is_renewed_before_it_ends() {
        let (ctx, ca) = (Context::new("gateway", "0"), Arc::new(ca()));
        let grant = gateway("gateway-1", &[]).grant(&ca, Duration::from_millis(300)).unwrap();
        let keychain = keep(ca, grant, &ctx).unwrap();
        let first = keychain.current().unwrap();
        let renewed = async {
            while Arc::ptr_eq(&keychain.current().unwrap(), &first) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), renewed).await.expect("not renewed");
        assert_eq!(keychain.current().unwrap().id.to_string(), "spiffe://shoal.local/gateway/gateway-1");
        let ended = ctx.tasks.shut_down(Duration::from_secs(10)).await;
        assert!(ended.failure.is_none() && ended.cut.is_empty(), "{ended:?}");
    }

    #[test]
    fn an_address_is_no_host_name() {
        let gateway = gateway("gateway-1", &["mirror.example", "10.0.0.2", "[2001:db8::1]"]);
        let grant = gateway.grant(&ca(), Duration::from_secs(60)).unwrap();
        assert_eq!(grant.hosts, ["mirror.example"]);
        let addresses = ["10.0.0.1", "10.0.0.2", "2001:db8::1"].map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!(grant.addresses, addresses);
    }

    #[test]
    fn a_name_that_no_certificate_can_hold_is_told() {
        let error = gateway("a b", &[]).grant(&ca(), Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("node.id: \"a b\""), "{error}");
    }
}
