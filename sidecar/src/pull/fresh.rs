//! Keeps the ticket of a long download fresh.
//!
//! A ticket lives for minutes, a download may take longer. So the gateway is asked for another before the
//! ticket runs out; a later request for the blob brings a ticket of its own and puts that off. Where the
//! gateway gives none, it is asked again after a while: it may be away, or a later request will bring one. A
//! download that is left without a good ticket goes down its ladder.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::download::{Shared, Start};

/// The longest time between two attempts; less where tickets are short.
const DISTANCE: Duration = Duration::from_secs(10);

/// Renews the download's ticket again and again; `renew` asks the gateway, and has nothing where it gives
/// none.
pub(super) async fn keep_fresh<T>(shared: &Shared, renew: impl Fn(Start) -> T)
where
    T: Future<Output = Option<Start>>,
{
    let mut starts = shared.starts();
    let mut not_before = Instant::now();
    loop {
        let (granted_at, lives) = {
            let start = starts.borrow_and_update();
            (start.granted_at, start.ticket_lives)
        };
        let due = granted_at + lives * 4 / 5;
        tokio::select! {
            () = sleep_until(due.max(not_before)) => {}
            () = shared.was_refused() => sleep_until(not_before).await,
            Ok(()) = starts.changed() => continue,
        }
        not_before = Instant::now() + DISTANCE.min(lives / 5);
        let start = starts.borrow().clone();
        let key = start.wanted.key.clone();
        match renew(start).await {
            Some(renewed) => shared.renew(renewed),
            None => tracing::warn!(%key, "ticket not renewed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            let ticket = start.wanted.ticket.clone();
            let renewed = start.renewed(ticket, testing::TICKET_LIVES, Instant::now());
            std::future::ready(is_granted.then_some(renewed))
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
