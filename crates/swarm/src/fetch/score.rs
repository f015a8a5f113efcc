//! `ml`: a model of the time that a piece takes, learned online from the transfers of one fetch.
//!
//! Nodes are unequal: one has an old card, another is busy for a second with work of its own. The average of past
//! pieces (`default`) notices that once a piece has come, and a source that is stuck sends none. The model predicts
//! how long a piece should take, so that an answer can be late before it is there.
//!
//! The time of a piece from source *s* is taken to be `exp(common + offset_s + error)`: a random-effects model
//! (Laird and Ware, 1982). Logarithms, because rates differ by factors; an offset for each source that starts at zero
//! and is believed the more the more was heard, so that one odd piece condemns nobody and an unknown source counts
//! as a common one. Both are moving averages, so that they follow a source that changes, and so is the size of the
//! error. An ask that another source answered first has lasted *at least* so long: it counts where the
//! prediction was shorter, and else says nothing.
//!
//! Four things follow from a prediction:
//! 1. Of the neighbours that hold a piece the one with the shortest time is asked.
//! 2. A source that has been silent for longer than predicted is taken to need that long.
//! 3. A source gets no further ask while those that it has would keep it for [`BACKLOG`] common pieces.
//! 4. An ask is late after the predicted time and [`DEVIATIONS`] errors. A late ask may be doubled, and
//!    its slot is used for another piece meanwhile: a fetch is slow not because some sources are, but because
//!    they hold its slots.
//!
//! What a source was asked already and how often it refused were tried as features, by recursive least
//! squares: on the simulator's worlds they brought nothing, so they are left out. The numbers are floating
//! point; a run replays bit for bit where the same library computes exponentials.

use std::time::Duration;

/// The slowest rates of learning, per transfer: what is common to all changes more slowly than one source.
const COMMON_RATE: f64 = 0.01;
const SOURCE_RATE: f64 = 0.2;
const ERROR_RATE: f64 = 0.05;
/// Nothing is late before the model has heard of so many transfers.
const N_ENOUGH: u32 = 8;
/// A transfer surprises by this factor's logarithm at most, and so an offset moves by no more.
const MOST_SURPRISE: f64 = 3.0;
/// How many mean errors above the prediction an answer is late.
const DEVIATIONS: f64 = 3.0;
/// Never late before this, which is a few times what a processor may keep an answer waiting.
const EARLIEST: Duration = Duration::from_millis(50);
/// How long a source may be at work on asks of this node before it gets another, in common pieces. With half of it
/// a node with few neighbours did not fill its link: last nodes of `burst` were 8 % later.
const BACKLOG: f64 = 4.0;
/// The longest time of rest after a refusal: sources that are always busy serve whoever asks when a slot is free.
pub(super) const LONGEST_REST: Duration = Duration::from_millis(50);

/// What is common to all sources of a fetch.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Of the time of a piece in microseconds, the logarithm.
    common: f64,
    /// The mean absolute error of predictions, in the same measure.
    error: f64,
    n_heard: u32,
}

/// What is particular to one source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    offset: f64,
    n_heard: u32,
}

impl Default for Model {
    fn default() -> Self {
        Self { common: 0.0, error: 0.5, n_heard: 0 }
    }
}

impl Model {
    /// How long a piece from this source should take.
    pub(super) fn expected(&self, record: &Record) -> Duration {
        time_of(self.common + record.offset)
    }

    /// After what time an answer of this source is late; `None` while too little is known.
    pub(super) fn late_after(&self, record: &Record) -> Option<Duration> {
        let late = time_of(self.common + record.offset + DEVIATIONS * self.error);
        (self.n_heard >= N_ENOUGH).then(|| late.max(EARLIEST))
    }

    /// Whether a source at which so many pieces were asked, each of which takes so long, gets one more.
    pub(super) fn has_room(&self, n_asked: u32, each: Duration) -> bool {
        let backlog = f64::from(n_asked) * each.as_secs_f64();
        n_asked == 0 || self.n_heard == 0 || backlog < BACKLOG * time_of(self.common).as_secs_f64()
    }

    /// A piece came from this source in such a time.
    pub(super) fn learn(&mut self, record: &mut Record, took: Duration) {
        let log = log_of(took);
        self.n_heard = self.n_heard.saturating_add(1);
        record.n_heard = record.n_heard.saturating_add(1);
        if self.n_heard == 1 {
            self.common = log;
            return;
        }
        let surprise = (log - self.common - record.offset).clamp(-MOST_SURPRISE, MOST_SURPRISE);
        self.error += ERROR_RATE * (surprise.abs() - self.error);
        // As if one transfer with the common time had been heard of before the source's own.
        record.offset += surprise * SOURCE_RATE.max(1.0 / (f64::from(record.n_heard) + 1.0));
        let rest = (log - self.common - record.offset).clamp(-MOST_SURPRISE, MOST_SURPRISE);
        self.common += rest * COMMON_RATE.max(1.0 / f64::from(self.n_heard));
    }

    /// A piece was not there after such a time.
    pub(super) fn learn_at_least(&mut self, record: &mut Record, lasted: Duration) {
        if self.expected(record) < lasted {
            self.learn(record, lasted);
        }
    }
}

fn log_of(time: Duration) -> f64 {
    (time.as_micros().max(1) as f64).ln()
}

/// The time of this logarithm; what is out of any measure is cut, not wrapped.
fn time_of(log: f64) -> Duration {
    Duration::from_micros(log.exp() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// A model and the records of two sources after so many pieces of each, in so many milliseconds.
    fn taught(n_pieces: u32, millis: [u32; 2]) -> (Model, [Record; 2]) {
        let (mut model, mut records) = (Model::default(), [Record::default(); 2]);
        for _ in 0..n_pieces {
            for (record, millis) in records.iter_mut().zip(millis) {
                model.learn(record, MILLI * millis);
            }
        }
        (model, records)
    }

    #[track_caller]
    fn check_near(time: Duration, millis: u32, tolerance: f64) {
        let ratio = time.as_secs_f64() / (MILLI * millis).as_secs_f64();
        assert!((1.0 - tolerance..=1.0 + tolerance).contains(&ratio), "{time:?} is not near {millis} ms");
    }

    #[test]
    fn equal_sources_are_predicted_exactly_and_an_unknown_one_like_them() {
        let (model, records) = taught(5, [70, 70]);
        for record in records.into_iter().chain([Record::default()]) {
            check_near(model.expected(&record), 70, 0.001);
        }
    }

    #[test]
    fn a_source_ten_times_as_slow_is_known_after_a_dozen_pieces() {
        let (model, [fast, slow]) = taught(12, [20, 200]);
        check_near(model.expected(&fast), 20, 0.2);
        check_near(model.expected(&slow), 200, 0.2);
    }

    #[test]
    fn one_odd_piece_condemns_nobody_and_a_change_is_followed() {
        let (mut model, [mut record, _]) = taught(20, [50, 50]);
        model.learn(&mut record, MILLI * 500);
        assert!(model.expected(&record) < MILLI * 100);
        (0..20).for_each(|_| model.learn(&mut record, MILLI * 500));
        check_near(model.expected(&record), 500, 0.2);
    }

    #[test]
    fn what_lasted_shorter_than_predicted_says_nothing() {
        let (mut model, [mut record, _]) = taught(20, [50, 50]);
        let before = model.expected(&record);
        model.learn_at_least(&mut record, MILLI * 10);
        assert_eq!(model.expected(&record), before);
        model.learn_at_least(&mut record, MILLI * 200);
        assert!(model.expected(&record) > before);
    }

    #[test]
    fn an_answer_is_late_once_enough_is_known_and_later_where_times_vary() {
        assert_eq!(taught(3, [50, 50]).0.late_after(&Record::default()), None);
        let (steady, [record, _]) = taught(100, [50, 50]);
        check_near(steady.late_after(&record).unwrap(), 50, 0.05);
        let (mut varied, [mut record, _]) = taught(100, [50, 50]);
        (0..100).for_each(|it| varied.learn(&mut record, MILLI * if it % 2 == 0 { 25 } else { 100 }));
        assert!(varied.late_after(&record).unwrap() > MILLI * 200);
    }

    #[test]
    fn a_source_gets_as_many_asks_as_it_answers_in_four_common_piece_times() {
        let (model, _) = taught(10, [60, 60]);
        for (each, most) in [(240, 1), (120, 2), (60, 4)] {
            let n_asked = (0..).find(|it| !model.has_room(*it, MILLI * each));
            assert_eq!(n_asked, Some(most), "{each} ms");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_heard_the_numbers_stay_within_what_was_heard(
            transfers in proptest::collection::vec((0..3_usize, any::<bool>(), any::<u64>()), 0..200),
        ) {
            let (mut model, mut records) = (Model::default(), [Record::default(); 3]);
            for (source, came, micros) in transfers {
                let took = Duration::from_micros(micros);
                let learn = if came { Model::learn } else { Model::learn_at_least };
                learn(&mut model, &mut records[source], took);
                let longest = log_of(Duration::from_micros(u64::MAX));
                prop_assert!((0.0..=longest).contains(&model.common), "{model:?}");
                prop_assert!((0.0..=MOST_SURPRISE).contains(&model.error), "{model:?}");
                for record in &records {
                    prop_assert!(record.offset.abs() <= longest, "{record:?}");
                    prop_assert!(model.late_after(record).is_none_or(|it| it >= model.expected(record)));
                }
            }
        }
    }
}
