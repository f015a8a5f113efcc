//! How often a node tells another one what it holds.

use std::time::Duration;

/// The least time between two messages that bring pieces.
const SHORTEST: Duration = Duration::from_millis(20);
/// And the longest.
const LONGEST: Duration = Duration::from_millis(400);
/// A message waits until about so many pieces have come.
const BATCH: u32 = 4;
/// Whoever holds or misses fewer pieces tells of each soon: at the beginning others may be waiting for it to have
/// something at all, and at the end for the last.
const FEW: u32 = 16;

/// How long after a message that brought `n_new` pieces a watcher hears of no more, from a node that holds `n_held` of
/// `n_pieces` and told of pieces `since` before that message, or not at all: zero.
///
/// A message costs both sides about as much whether it brings one piece or twenty, and every neighbour of a node gets
/// one. On a link where pieces come slowly most would bring a single one, and a fleet would spend more on news than
/// on pieces. Nobody misses the few that wait: there are others to ask for meanwhile.
pub fn distance(n_held: u32, n_pieces: u32, n_new: u32, since: Duration) -> Duration {
    if n_held < FEW || n_pieces < n_held + FEW {
        return SHORTEST;
    }
    (since / n_new.max(1) * BATCH).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(n_held: u32, n_new: u32, since_millis: u64, expected_millis: u64) {
        let distance = distance(n_held, 500, n_new, Duration::from_millis(since_millis));
        assert_eq!(distance, Duration::from_millis(expected_millis));
    }

    #[test]
    fn messages_wait_for_four_pieces_within_bounds() {
        check(100, 4, 32, 32);
        check(100, 1, 31, 124);
        check(100, 2, 262, 400);
        check(100, 50, 50, 20);
    }

    #[test]
    fn the_first_and_the_last_pieces_are_told_soon_and_so_is_what_follows_a_first_message() {
        check(15, 1, 131, 20);
        check(16, 1, 131, 400);
        check(484, 1, 131, 400);
        check(485, 1, 131, 20);
        check(100, 100, 0, 20);
    }
}
