//! Which blobs leave the disk.
//!
//! Three reasons: nobody has used a blob for the time that tasks live; the store's own usage has passed
//! its capacity, and then falls to the low mark at once, so that eviction does not run for every new
//! blob; the volume has less free space than the floor, whoever filled it. Among the last two the least
//! recently used goes first. A blob in use stays, even when that leaves a goal missed.

use std::time::{Duration, SystemTime};

use shoal_model::BlobKey;

/// One blob as eviction sees it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) key: BlobKey,
    /// What it takes on disk.
    pub(crate) bytes: u64,
    pub(crate) last_used: SystemTime,
    /// Whether a handle on it lives.
    pub(crate) in_use: bool,
}

/// What eviction has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Usage above this starts eviction, in bytes.
    pub(crate) capacity: u64,
    /// Eviction brings usage down to this, in bytes.
    pub(crate) low_mark: u64,
    /// A blob unused for this long goes.
    pub(crate) expire_after: Duration,
    /// How many bytes the volume's free space lies below its floor.
    pub(crate) shortfall: u64,
}

/// What goes, by reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) expired: Vec<BlobKey>,
    /// Least recently used first.
    pub(crate) evicted: Vec<BlobKey>,
}

/// Chooses what goes.
pub(crate) fn choose(now: SystemTime, mut census: Vec<Candidate>, limits: &Limits) -> Choice {
    let usage: u64 = census.iter().map(|it| it.bytes).sum();
    let excess = if usage > limits.capacity { usage - limits.low_mark.min(usage) } else { 0 };
    let goal = excess.max(limits.shortfall);

    census.retain(|it| !it.in_use);
    census.sort_by_key(|it| it.last_used);
    let mut freed = 0;
    let mut choice = Choice::default();
    for candidate in census {
        // A clock set back makes a blob look used in the future: it has then not expired.
        let idle = now.duration_since(candidate.last_used).unwrap_or_default();
        let list = if idle >= limits.expire_after {
            &mut choice.expired
        } else if freed < goal {
            &mut choice.evicted
        } else {
            break;
        };
        freed += candidate.bytes;
        list.push(candidate.key);
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{Digest, TrustGroup};

    fn key(id: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([id; 32]) }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Blobs are (id, bytes, second of last use, in use); the time is second 1000, tasks live 600 s.
    #[track_caller]
    fn check(blobs: &[(u8, u64, u64, bool)], shortfall: u64, expired: &[u8], evicted: &[u8]) {
        let census = blobs
            .iter()
            .map(|(id, bytes, used, in_use)| Candidate {
                key: key(*id),
                bytes: *bytes,
                last_used: at(*used),
                in_use: *in_use,
            })
            .collect();
        let limits =
            Limits { capacity: 100, low_mark: 80, expire_after: Duration::from_secs(600), shortfall };
        let keys = |ids: &[u8]| ids.iter().map(|id| key(*id)).collect();
        let expected = Choice { expired: keys(expired), evicted: keys(evicted) };
        assert_eq!(choose(at(1000), census, &limits), expected);
    }

    #[test]
    fn a_store_within_its_limits_keeps_everything() {
        check(&[(1, 60, 900, false), (2, 40, 950, false)], 0, &[], &[]);
        check(&[], 10, &[], &[]);
    }

    #[test]
    fn the_unused_expire() {
        check(&[(1, 1, 400, false), (2, 1, 401, false)], 0, &[1], &[]);
    }

    #[test]
    fn above_capacity_the_least_recently_used_go_down_to_the_low_mark() {
        check(
            &[(1, 30, 970, false), (2, 15, 950, false), (3, 16, 960, false), (4, 50, 990, false)],
            0,
            &[],
            &[2, 3],
        );
    }

    #[test]
    fn what_expired_counts_towards_the_goal() {
        check(&[(1, 40, 100, false), (2, 70, 900, false)], 0, &[1], &[]);
    }

    #[test]
    fn a_blob_in_use_stays_whatever_is_missed() {
        check(&[(1, 500, 0, true), (2, 10, 900, false), (3, 500, 950, true)], 0, &[], &[2]);
    }

    #[test]
    fn the_free_floor_evicts_below_capacity_too() {
        check(&[(1, 20, 900, false), (2, 20, 910, false)], 15, &[], &[1]);
        check(&[(1, 20, 900, false), (2, 20, 910, false)], 21, &[], &[1, 2]);
    }

    #[test]
    fn the_greater_of_two_goals_is_met_once() {
        check(&[(1, 35, 900, false), (2, 35, 910, false), (3, 35, 920, false)], 30, &[], &[1]);
    }

    #[test]
    fn a_use_in_the_future_is_a_recent_use() {
        check(&[(1, 60, 5000, false), (2, 60, 900, false)], 0, &[], &[2]);
    }
}
