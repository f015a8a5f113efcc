//! What has been told lately, so that an event which comes twice does something once.
//!
//! Harbor repeats an event that it believes lost, for some minutes. Whoever pushes the same again after that starts
//! the same job again, which finds all bytes there.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use super::push::Push;
use crate::timestamp::Timestamp;

/// For how long an event is known: longer than Harbor tries.
const FOR: Duration = Duration::from_secs(10 * 60);
/// How many are known.
const MOST: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

/// The pushes that something was done about lately.
#[derive(Debug)]
pub(crate) struct Told(LruCache<Push, Timestamp>);

impl Default for Told {
    fn default() -> Self {
        Self(LruCache::new(MOST))
    }
}

impl Told {
    /// Whether something was done about it lately.
    pub(crate) fn knows(&mut self, push: &Push, now: Timestamp) -> bool {
        self.0.get(push).is_some_and(|at| now.since(*at) < FOR && at.since(now) < FOR)
    }

    /// Notes that something was.
    pub(crate) fn note(&mut self, push: Push, now: Timestamp) {
        self.0.put(push, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(tag: usize) -> Push {
        let owned = str::to_owned;
        Push { host: owned("h"), repository: owned("r"), tag: format!("v{tag}"), digest: owned("d") }
    }

    fn at(minute: u32) -> Timestamp {
        format!("2026-06-01T12:{minute:02}:00Z").parse().unwrap()
    }

    #[test]
    fn an_event_is_known_for_ten_minutes_whichever_way_the_clock_goes() {
        let mut told = Told::default();
        told.note(push(1), at(30));
        for (minute, expected) in [(30, true), (39, true), (40, false), (25, true), (20, false)] {
            assert_eq!(told.knows(&push(1), at(minute)), expected, "{minute}");
        }
        assert!(!told.knows(&push(2), at(30)));
    }

    #[test]
    fn only_so_many_are_known() {
        let mut told = Told::default();
        (0..MOST.get() + 1).for_each(|it| told.note(push(it), at(0)));
        assert!(!told.knows(&push(0), at(0)) && told.knows(&push(1), at(0)));
    }
}
