//! Shows when this process's certificate ends.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::gauge::Gauge;
use shoal_ops::Context;

use crate::keychain::Keychain;

/// Adds when the process's certificate begins and ends to its metrics, and keeps that true.
pub fn show_expiry(ctx: &Context, keychain: &Keychain) {
    let (begin, expiry) = (Gauge::<i64>::default(), Gauge::<i64>::default());
    let help = "When this process's certificate began, in seconds since 1970; 0 while it has none";
    ctx.metrics.register(|it| it.register("certificate_begin_timestamp_seconds", help, begin.clone()));
    let help = "When this process's certificate ends, in seconds since 1970; 0 while it has none";
    ctx.metrics.register(|it| it.register("certificate_expiry_timestamp_seconds", help, expiry.clone()));
    let (keychain, mut replaced) = (keychain.clone(), keychain.replacements());
    let stopping = ctx.tasks.stopping();
    ctx.tasks.spawn_infallible("certificate expiry", async move {
        loop {
            let validity = keychain.current().map(|it| it.validity);
            begin.set(validity.map_or(0, |it| seconds(it.from)));
            expiry.set(validity.map_or(0, |it| seconds(it.until)));
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
