//! How urgent a seed is.
//!
//! Somebody waits for a live one. A background one is to be there later: it takes what live ones leave. As soon as
//! somebody wants its blob now, it becomes live and stays so, wherever it stands at that moment.

use tokio::sync::watch;

/// What a blob is wanted for; the more urgent is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// A pull that is under way.
    Live,
    /// Pulls to come.
    Background,
}

/// The priority of one seed, as all that work for it see it; clones are of the same. It only rises.
#[derive(Clone, Debug)]
pub(crate) struct Urgency(watch::Sender<Priority>);

impl Urgency {
    pub(crate) fn new(priority: Priority) -> Self {
        Self(watch::Sender::new(priority))
    }

    /// Of somebody who waits.
    pub(crate) fn live() -> Self {
        Self::new(Priority::Live)
    }

    pub(crate) fn now(&self) -> Priority {
        *self.0.borrow()
    }

    pub(crate) fn is_live(&self) -> bool {
        self.now() == Priority::Live
    }

    /// It is at least as urgent as this from now on.
    pub(crate) fn rise(&self, priority: Priority) {
        self.0.send_if_modified(|it| {
            let rises = priority < *it;
            *it = priority.min(*it);
            rises
        });
    }

    /// Waits until it is live.
    pub(crate) async fn until_live(&self) {
        // `self` keeps the sender.
        let _ = self.0.subscribe().wait_for(|it| *it == Priority::Live).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_has_become_live_stays_so() {
        let urgency = Urgency::new(Priority::Background);
        let seen = urgency.clone();
        assert_eq!(seen.until_live().now_or_never(), None);
        for priority in [Priority::Background, Priority::Live, Priority::Background] {
            urgency.rise(priority);
        }
        assert!(seen.is_live() && seen.until_live().now_or_never().is_some());
    }
}
