//! What a seed does next, after each thing that the registry did.
//!
//! A registry is read once, so an error in the middle costs only what is missing: the seed asks again by
//! `Range` from where it stands. It backs off while nothing moves, goes on at once after progress, and
//! gives up after a bounded number of attempts without any. `Retry-After` is obeyed, but nodes wait for a
//! seed that lives: a registry that wants to be left alone for long ends it, and nodes then decide for
//! themselves. So does what another attempt cannot mend: a refusal, or content of another length than was
//! granted.
//!
//! Knows nothing of: sockets, credentials, hashes, clocks.

use std::time::Duration;

use shoal_model::Rng;

/// The most attempts in a row that bring no byte.
const MAX_ATTEMPTS: u32 = 8;
const FIRST_BACK_OFF: Duration = Duration::from_millis(200);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// The longest that a registry is left alone within a seed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The head of a registry's answer to a request for a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Where the body begins within the content, where that is known.
    pub(crate) start: Option<u64>,
    /// The length of the whole content, where it is stated.
    pub(crate) total: Option<u64>,
    /// How long the registry wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

/// What to do when there is nothing to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setback {
    /// Ask for what is missing, after a while.
    Ask { after: Duration },
    /// The same, but the registry wants to be left alone meanwhile.
    LeaveAlone { wait: Duration },
    /// End the seed.
    GiveUp(Fault),
}

/// Why a seed ends without its blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the registry answered {0}")]
    Refused(u16),
    #[error("the registry has {found} bytes, but {granted} were granted")]
    OtherLength { found: u64, granted: u64 },
    #[error("no byte in {MAX_ATTEMPTS} attempts from byte {offset} on, {}", last_answer(*answered))]
    Stuck { offset: u64, answered: Option<u16> },
    #[error("the registry wants to be left alone for {} s, more than {} s", wait.as_secs(), LONGEST_WAIT.as_secs())]
    LeftAlone { wait: Duration },
}

fn last_answer(status: Option<u16>) -> String {
    status.map_or_else(
        || "no answer that could be read to its end".to_owned(),
        |it| format!("the last answer was {it}"),
    )
}

/// One seed's attempts.
#[derive(Debug)]
pub(crate) struct Plan {
    size: u64,
    /// How far the seed was when it last failed.
    offset: u64,
    n_attempts: u32,
    rng: Rng,
}

impl Plan {
    /// For content that was granted with this size, in bytes. `rng` spreads the attempts of several seeds.
    pub(crate) const fn new(size: u64, rng: Rng) -> Self {
        Self { size, offset: 0, n_attempts: 0, rng }
    }

    /// The registry answered while the seed stood at `offset`. Returns how many bytes at the beginning of
    /// the body are known already.
    pub(crate) fn answered(&mut self, offset: u64, answer: &Answer) -> Result<u64, Setback> {
        match answer.status {
            200 | 206 => self.granted(offset, answer),
            // The part that is missing does not exist.
            416 => Err(Setback::GiveUp(Fault::OtherLength {
                found: answer.total.unwrap_or(offset),
                granted: self.size,
            })),
            408 | 429 | 500..=599 => Err(self.busy(offset, answer)),
            status => Err(Setback::GiveUp(Fault::Refused(status))),
        }
    }

    /// There was no answer, or its body ended early, with the seed at `offset`.
    pub(crate) fn broke(&mut self, offset: u64) -> Setback {
        self.failed(offset, None)
    }

    fn granted(&mut self, offset: u64, answer: &Answer) -> Result<u64, Setback> {
        if let Some(found) = answer.total.filter(|it| *it != self.size) {
            return Err(Setback::GiveUp(Fault::OtherLength { found, granted: self.size }));
        }
        // A part that begins too far on, or nobody knows where, is of no use; a registry may do better next
        // time.
        let known = answer.start.and_then(|start| offset.checked_sub(start));
        known.ok_or_else(|| self.failed(offset, Some(answer.status)))
    }

    fn busy(&mut self, offset: u64, answer: &Answer) -> Setback {
        match (self.failed(offset, Some(answer.status)), answer.retry_after) {
            (Setback::Ask { .. }, Some(wait)) if wait > LONGEST_WAIT => {
                Setback::GiveUp(Fault::LeftAlone { wait })
            }
            (Setback::Ask { after }, Some(wait)) => Setback::LeaveAlone { wait: wait.max(after) },
            (setback, _) => setback,
        }
    }

    /// `answered` is the status of an answer without anything of use.
    fn failed(&mut self, offset: u64, answered: Option<u16>) -> Setback {
        if offset > self.offset {
            self.n_attempts = 0;
        }
        self.offset = offset;
        self.n_attempts += 1;
        if self.n_attempts >= MAX_ATTEMPTS {
            return Setback::GiveUp(Fault::Stuck { offset, answered });
        }
        Setback::Ask { after: self.back_off() }
    }

    /// Doubles with each attempt; each wait is drawn from its upper half.
    fn back_off(&mut self) -> Duration {
        let doubled = FIRST_BACK_OFF.saturating_mul(1 << (self.n_attempts - 1)).min(LONGEST_BACK_OFF);
        let half = doubled / 2;
        let jitter = self.rng.below(half.as_micros() as usize + 1) as u64;
        half + Duration::from_micros(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    const SIZE: u64 = 1000;

    fn plan() -> Plan {
        Plan::new(SIZE, Rng::new(7))
    }

    fn answer(status: u16, start: u64, total: Option<u64>) -> Answer {
        Answer { status, start: Some(start), total, retry_after: None }
    }

    #[track_caller]
    fn check(offset: u64, answer: Answer, expected: Result<u64, Setback>) {
        assert_eq!(plan().answered(offset, &answer), expected, "{answer:?}");
    }

    #[test]
    fn content_is_read_from_where_the_seed_stands() {
        check(0, answer(200, 0, Some(SIZE)), Ok(0));
        check(0, answer(200, 0, None), Ok(0));
        check(400, answer(206, 400, Some(SIZE)), Ok(0));
        check(400, answer(206, 300, None), Ok(100));
        // A registry that ignores Range sends everything again.
        check(400, answer(200, 0, Some(SIZE)), Ok(400));
    }

    #[test]
    fn content_of_another_length_and_refusals_end_the_seed() {
        let other = |found| Err(Setback::GiveUp(Fault::OtherLength { found, granted: SIZE }));
        check(0, answer(200, 0, Some(999)), other(999));
        check(400, answer(206, 400, Some(2000)), other(2000));
        check(400, answer(416, 0, Some(400)), other(400));
        for status in [301, 400, 401, 403, 404, 412] {
            check(0, answer(status, 0, None), Err(Setback::GiveUp(Fault::Refused(status))));
        }
    }

    #[test]
    fn a_part_that_does_not_say_where_it_begins_is_asked_for_again() {
        for offset in [0, 400] {
            let unknown = Answer { start: None, ..answer(206, 0, None) };
            let setback = plan().answered(offset, &unknown).unwrap_err();
            assert!(matches!(setback, Setback::Ask { .. }), "{setback:?}");
        }
    }

    #[test]
    fn a_busy_registry_is_left_alone_for_as_long_as_it_asks_unless_that_is_long() {
        for (seconds, is_long) in [(30, false), (60, false), (61, true), (6 * 60 * 60, true)] {
            let wait = Duration::from_secs(seconds);
            let expected = match is_long {
                false => Setback::LeaveAlone { wait },
                true => Setback::GiveUp(Fault::LeftAlone { wait }),
            };
            for status in [429, 503] {
                let busy = Answer { retry_after: Some(wait), ..answer(status, 0, None) };
                check(0, busy, Err(expected.clone()));
            }
        }
    }

    #[test]
    fn attempts_without_progress_back_off_and_end_and_progress_starts_anew() {
        let mut plan = plan();
        let mut waits = Vec::new();
        let gave_up = loop {
            match plan.broke(400) {
                Setback::Ask { after } => waits.push(after),
                next => break next,
            }
        };
        assert_eq!(gave_up, Setback::GiveUp(Fault::Stuck { offset: 400, answered: None }));
        assert_eq!(waits.len(), MAX_ATTEMPTS as usize - 1);
        assert!(waits.is_sorted() && waits[0] <= FIRST_BACK_OFF && waits[6] <= LONGEST_BACK_OFF, "{waits:?}");
        let next = plan.broke(401);
        assert!(matches!(next, Setback::Ask { after } if after <= FIRST_BACK_OFF), "{next:?}");
    }

    #[test]
    fn a_registry_that_is_given_up_is_quoted() {
        let mut plan = plan();
        let fault = std::iter::from_fn(|| plan.answered(400, &answer(429, 0, None)).err())
            .find_map(|it| if let Setback::GiveUp(fault) = it { Some(fault) } else { None });
        let why = fault.unwrap().to_string();
        assert_eq!(why, "no byte in 8 attempts from byte 400 on, the last answer was 429");
    }

    proptest! {
        #[test]
        fn a_registry_that_never_moves_is_given_up_whatever_it_says(
            answers in proptest::collection::vec((200u16..600, 0u64..2000, proptest::option::of(0u64..2000)), 20)
        ) {
            let mut plan = plan();
            let ended = answers.into_iter().any(|(status, start, total)| {
                let setback = match plan.answered(500, &answer(status, start, total)) {
                    Ok(_) => plan.broke(500),
                    Err(setback) => setback,
                };
                matches!(setback, Setback::GiveUp(_))
            });
            prop_assert!(ended);
        }
    }
}
