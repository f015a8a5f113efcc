//! Keeps the ticket of a long download fresh.
//!
//! A ticket lives for minutes, a download may take longer. So the gateway is asked again before the ticket
//! runs out, in the latest caller's name; a later request for the blob brings a ticket of its own and puts
//! that off. Where the gateway does not grant it, it is asked again after a while: it may be away, or the
//! caller's token has run out and a later request will bring another. A download that is left without a good
//! ticket goes down its ladder.

use std::time::Duration;

use shoal_peer::ticket;
use tokio::time::{Instant, sleep_until};

use super::download::{Shared, Start};
use super::open::Opening;

/// The age at which a ticket is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(ticket::LIVES.as_secs() / 5 * 4);
/// The least time between two attempts.
const DISTANCE: Duration = Duration::from_secs(10);

/// Renews the download's ticket again and again; `open` asks the gateway for the blob anew.
pub(super) async fn keep_fresh<T>(shared: &Shared, open: impl Fn(Start) -> T)
where
    T: Future<Output = Opening>,
{
    let mut starts = shared.starts();
    let mut not_before = Instant::now();
    loop {
        let due = starts.borrow_and_update().granted_at + RENEW_AFTER;
        tokio::select! {
            () = sleep_until(due.max(not_before)) => {}
            () = shared.was_refused() => sleep_until(not_before).await,
            Ok(()) = starts.changed() => continue,
        }
        not_before = Instant::now() + DISTANCE;
        let start = starts.borrow().clone();
        match open(start.clone()).await {
            Opening::Granted(grant) if grant.blob.key == start.wanted.key => {
                shared.renew(start.renewed(grant));
            }
            opening => tracing::warn!(key = %start.wanted.key, ?opening, "ticket not renewed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull::open::Grant;
    use crate::pull::testing;
    use std::cell::Cell;

    /// The seconds at which a gateway is asked that grants the blob the `n`th time and not before.
    async fn asked_at(n: usize, until: u64, refused_at: Option<u64>) -> Vec<u64> {
        let (_dir, store) = testing::store();
        let shared = testing::shared(testing::blob(&store));
        let began = Instant::now();
        let asked = Cell::new(Vec::new());
        let keeping = keep_fresh(&shared, |start| {
            let mut times = asked.take();
            times.push(began.elapsed().as_secs());
            let is_granted = times.len() >= n;
            asked.set(times);
            let grant = Grant { blob: testing::grant().blob, at: Instant::now() };
            assert_eq!(start.wanted.key, grant.blob.key);
            std::future::ready(if is_granted { Opening::Granted(grant) } else { Opening::NoGateway })
        });
        let refused = async {
            if let Some(at) = refused_at {
                sleep_until(began + Duration::from_secs(at)).await;
                shared.refused();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = keeping => {}
            () = refused => {}
            () = sleep_until(began + Duration::from_secs(until)) => {}
        }
        asked.take()
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_renewed_before_it_runs_out() {
        assert_eq!(asked_at(1, 800, None).await, [240, 480, 720]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_does_not_answer_is_asked_again() {
        assert_eq!(asked_at(3, 600, None).await, [240, 250, 260, 500]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_that_a_node_refused_is_renewed_at_once() {
        assert_eq!(asked_at(1, 400, Some(30)).await, [30, 270]);
        assert_eq!(asked_at(2, 290, Some(245)).await, [240, 250]);
    }
}
