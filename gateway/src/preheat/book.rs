//! The jobs that there are: those that wait, those at work, and for a while those that have ended.
//!
//! A job that is asked for twice while it goes on is one job. So many are at work at once, so many more may wait, and
//! whoever asks for another one is turned away. Numbers are given once and never again.
//!
//! Knows nothing of: what jobs do, where they are kept, clocks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::image::{Image, Platforms};
use super::request::{Elsewhere, Request, Scope, Selector};
use super::view::JobView;
use crate::authority::Holder;
use crate::timestamp::Timestamp;

/// How many jobs are at work at once.
pub(super) const MAX_RUNNING: usize = 8;
/// How many more may wait.
pub(super) const MAX_QUEUED: usize = 1000;
/// How many that have ended are kept, and for how long.
const MAX_ENDED: usize = 500;
/// The most jobs that a gateway has.
pub(super) const MAX_JOBS: usize = MAX_RUNNING + MAX_QUEUED + MAX_ENDED;
const ENDED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What makes two requests one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sameness {
    image: Image,
    platforms: Platforms,
    scope: Scope,
    selector: Selector,
    elsewhere: Elsewhere,
    /// With whose right.
    holder: Holder,
}

impl Sameness {
    pub(super) fn of(request: &Request, holder: Holder) -> Self {
        let Request { image, platforms, scope, selector, elsewhere, .. } = request.clone();
        Self { image, platforms, scope, selector, elsewhere, holder }
    }
}

/// The jobs.
#[derive(Debug)]
pub(super) struct Book {
    next_id: u64,
    going_on: BTreeMap<u64, Sameness>,
    queued: VecDeque<u64>,
    ended: BTreeMap<u64, Arc<JobView>>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// A job of its own.
    New(u64),
    /// The same as one that goes on.
    Joined(u64),
}

/// As many jobs wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Book {
    /// The number of the next job is at least this.
    pub(super) fn new(next_id: u64, ended: impl IntoIterator<Item = Arc<JobView>>) -> Self {
        let ended = ended.into_iter().map(|it| (it.id, it)).collect();
        Self { next_id: next_id.max(1), going_on: BTreeMap::new(), queued: VecDeque::new(), ended }
    }

    /// The same job, if it goes on.
    pub(super) fn same(&self, job: &Sameness) -> Option<u64> {
        self.going_on.iter().find(|(_, it)| *it == job).map(|(id, _)| *id)
    }

    /// Takes in a job that was asked for. Its number is at least `least`.
    pub(super) fn enter(&mut self, job: Sameness, least: u64) -> Result<Entered, Full> {
        if let Some(id) = self.same(&job) {
            return Ok(Entered::Joined(id));
        }
        if self.queued.len() >= MAX_QUEUED {
            return Err(Full);
        }
        let id = self.next_id.max(least);
        self.resume(id, job);
        Ok(Entered::New(id))
    }

    /// Takes in a job from before, or from another gateway. It waits behind those that were asked for earlier.
    pub(super) fn resume(&mut self, id: u64, job: Sameness) {
        self.next_id = self.next_id.max(id.saturating_add(1));
        self.going_on.insert(id, job);
        let place = self.queued.partition_point(|it| *it < id);
        self.queued.insert(place, id);
    }

    /// Whether a job of this number would begin at once.
    pub(super) fn has_room_for(&self, id: u64) -> bool {
        let n_running = self.going_on.len() - self.queued.len();
        n_running < MAX_RUNNING && self.queued.front().is_none_or(|it| id < *it)
    }

    /// The next job to begin, if one may.
    pub(super) fn begin(&mut self) -> Option<u64> {
        let n_running = self.going_on.len() - self.queued.len();
        if n_running < MAX_RUNNING { self.queued.pop_front() } else { None }
    }

    /// Takes back a job that has not begun; false where it has.
    pub(super) fn unqueue(&mut self, id: u64) -> bool {
        let before = self.queued.len();
        self.queued.retain(|it| *it != id);
        self.queued.len() < before
    }

    /// This gateway has no such job any more.
    pub(super) fn forget(&mut self, id: u64) {
        self.unqueue(id);
        self.going_on.remove(&id);
    }

    /// A job has ended, and this is what is left of it. Returns those that are kept no longer.
    pub(super) fn ended(&mut self, now: Timestamp, view: Arc<JobView>) -> Vec<u64> {
        self.going_on.remove(&view.id);
        self.ended.insert(view.id, view);
        let n_over = self.ended.len().saturating_sub(MAX_ENDED);
        let is_old = |it: &JobView| now.since(it.updated) > ENDED_FOR;
        let gone = self.ended.iter().enumerate();
        let gone = gone.filter(|(n, (_, it))| *n < n_over || is_old(it)).map(|(_, (id, _))| *id);
        let gone: Vec<_> = gone.collect();
        gone.iter().for_each(|id| drop(self.ended.remove(id)));
        gone
    }

    /// One that has ended.
    pub(super) fn get_ended(&self, id: u64) -> Option<&Arc<JobView>> {
        self.ended.get(&id)
    }

    /// All that have ended, and the numbers of those that have not.
    pub(super) fn ids(&self) -> (impl Iterator<Item = &Arc<JobView>>, impl Iterator<Item = u64>) {
        (self.ended.values(), self.going_on.keys().copied())
    }

    /// How many wait and how many are at work.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.queued.len(), self.going_on.len() - self.queued.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Asked;
    use super::super::view::State;
    use super::*;

    fn request(tag: usize) -> Request {
        let asked = Asked { image: format!("a.example/b:{tag}"), ..Asked::default() };
        Request::new(asked, |it| it.parse().ok()).unwrap()
    }

    fn job(tag: usize) -> Sameness {
        Sameness::of(&request(tag), Holder::Anonymous)
    }

    fn view(id: u64, now: Timestamp) -> Arc<JobView> {
        let view = JobView::new(id, "ann".to_owned(), &request(1), now);
        Arc::new(JobView { state: State::Success, ..view })
    }

    #[test]
    fn the_same_request_joins_a_job_that_goes_on_and_no_other() {
        let mut book = Book::new(0, []);
        assert_eq!(book.enter(job(1), 0), Ok(Entered::New(1)));
        assert_eq!(book.enter(job(1), 0), Ok(Entered::Joined(1)));
        assert_eq!(book.enter(job(2), 0), Ok(Entered::New(2)));
        let other = Sameness { holder: Holder::Caller([1; 32]), ..job(1) };
        assert_eq!(
            book.enter(other, 0),
            Ok(Entered::New(3)),
            "another's credential may be worth more or less"
        );
        assert_eq!(book.begin(), Some(1));
        assert_eq!(book.enter(job(1), 0), Ok(Entered::Joined(1)));
        book.ended(Timestamp::now(), view(1, Timestamp::now()));
        assert_eq!(book.enter(job(1), 0), Ok(Entered::New(4)));
    }

    #[test]
    fn so_many_are_at_work_so_many_wait_and_more_are_turned_away() {
        let mut book = Book::new(0, []);
        for n in 0..MAX_QUEUED {
            assert!(book.enter(job(n), 0).is_ok());
        }
        assert_eq!(book.enter(job(9999), 0), Err(Full));
        for n in 1..=MAX_RUNNING as u64 {
            assert_eq!(book.begin(), Some(n));
        }
        assert_eq!(book.begin(), None);
        assert!(book.enter(job(9999), 0).is_ok());
        book.ended(Timestamp::now(), view(3, Timestamp::now()));
        assert_eq!(book.begin(), Some(MAX_RUNNING as u64 + 1));
    }

    #[test]
    fn a_number_is_never_given_again() {
        let ended = view(7, Timestamp::now());
        let mut book = Book::new(12, [ended]);
        book.resume(20, job(1));
        assert_eq!(book.enter(job(2), 0), Ok(Entered::New(21)));
        assert_eq!(Book::new(12, []).enter(job(2), 0), Ok(Entered::New(12)));
    }

    #[test]
    fn where_others_give_numbers_too_the_next_is_as_large_as_is_said() {
        let mut book = Book::new(12, []);
        assert_eq!(book.enter(job(1), 1_000_000), Ok(Entered::New(1_000_000)));
        assert_eq!(book.enter(job(2), 7), Ok(Entered::New(1_000_001)), "a clock that is set back");
    }

    #[test]
    fn a_job_from_elsewhere_waits_behind_those_that_were_asked_for_earlier() {
        let mut book = Book::new(1, []);
        [5, 9].into_iter().for_each(|id| book.resume(id, job(id as usize)));
        assert!(book.has_room_for(4) && !book.has_room_for(7));
        book.resume(7, job(7));
        assert_eq!([book.begin(), book.begin(), book.begin()], [Some(5), Some(7), Some(9)]);
        (10..15).for_each(|id| book.resume(id, job(id as usize)));
        while book.begin().is_some() {}
        assert!(!book.has_room_for(1), "as many are at work as may be");
        book.forget(9);
        assert!(book.has_room_for(1));
    }

    #[test]
    fn of_those_that_have_ended_the_latest_are_kept_for_a_week() {
        let now = Timestamp::now();
        let mut book = Book::new(0, (1..=MAX_ENDED as u64).map(|id| view(id, now)));
        assert_eq!(book.ended(now, view(9999, now)), [1]);
        let later = Timestamp::of(std::time::SystemTime::now() + ENDED_FOR + Duration::from_secs(60));
        assert_eq!(book.ended(later, view(10000, later)).len(), MAX_ENDED);
        assert!(book.get_ended(10000).is_some() && book.get_ended(9999).is_none());
    }
}
