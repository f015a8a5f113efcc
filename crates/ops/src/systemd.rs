//! What the process tells its service manager, where there is one that listens.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent. A manager that cannot be told is logged and
//! otherwise ignored: the service itself is none the worse.

use std::time::Duration;

use sd_notify::NotifyState;

/// All that was asked for is up.
pub(crate) fn ready() {
    tell(&NotifyState::Ready);
}

/// The process is on its way out.
pub(crate) fn stopping() {
    tell(&NotifyState::Stopping);
}

/// The runtime turns.
pub(crate) fn alive() {
    tell(&NotifyState::Watchdog);
}

/// How often the manager wants to hear [`alive`], with room for a late one; none when it does not.
pub(crate) fn alive_interval() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled()?;
    (!limit.is_zero()).then_some(limit / 2)
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%state, %error, "the service manager could not be told");
    }
}
