//! Shows when this process's certificate ends.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::gauge::Gauge;
use shoal_ops::Context;

use crate::keychain::Keychain;

/// Adds `certificate_expiry_timestamp_seconds` to the process's metrics, and keeps it true.
pub fn show_expiry(ctx: &Context, keychain: &Keychain) {
    let expiry = Gauge::<i64>::default();
    let help = "When this process's certificate ends, in seconds since 1970; 0 while it has none";
    ctx.metrics.register(|it| it.register("certificate_expiry_timestamp_seconds", help, expiry.clone()));
    let (keychain, mut replaced) = (keychain.clone(), keychain.replacements());
    let stopping = ctx.tasks.stopping();
    ctx.tasks.spawn_infallible("certificate expiry", async move {
        loop {
            let until = keychain.current().map_or(UNIX_EPOCH, |it| it.validity.until);
            expiry.set(seconds(until));
            // The sender lives as long as the keychain.
            if stopping.run_until_cancelled(replaced.changed()).await.is_none() {
                return;
            }
        }
    });
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
