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
    pub(super) fn new(next_id: u64, ended: impl IntoIterator<Item = JobView>) -> Self {
        let ended = ended.into_iter().map(|it| (it.id, Arc::new(it))).collect();
        Self { next_id: next_id.max(1), going_on: BTreeMap::new(), queued: VecDeque::new(), ended }
    }

    /// Takes in a job that was asked for.
    pub(super) fn enter(&mut self, job: Sameness) -> Result<Entered, Full> {
        if let Some((id, _)) = self.going_on.iter().find(|(_, it)| **it == job) {
            return Ok(Entered::Joined(*id));
        }
        if self.queued.len() >= MAX_QUEUED {
            return Err(Full);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.resume(id, job);
        Ok(Entered::New(id))
    }

    /// Takes in a job from before.
    pub(super) fn resume(&mut self, id: u64, job: Sameness) {
        self.next_id = self.next_id.max(id + 1);
        self.going_on.insert(id, job);
        self.queued.push_back(id);
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

    /// There is no such job after all.
    pub(super) fn forget(&mut self, id: u64) {
        self.going_on.remove(&id);
    }

    /// A job has ended, and this is what is left of it. Returns those that are kept no longer.
    pub(super) fn ended(&mut self, now: Timestamp, view: JobView) -> Vec<u64> {
        self.going_on.remove(&view.id);
        self.ended.insert(view.id, Arc::new(view));
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

    fn view(id: u64, now: Timestamp) -> JobView {
        let view = JobView::new(id, "ann".to_owned(), &request(1), now);
        JobView { state: State::Success, ..view }
    }

    #[test]
    fn the_same_request_joins_a_job_that_goes_on_and_no_other() {
        let mut book = Book::new(0, []);
        assert_eq!(book.enter(job(1)), Ok(Entered::New(1)));
        assert_eq!(book.enter(job(1)), Ok(Entered::Joined(1)));
        assert_eq!(book.enter(job(2)), Ok(Entered::New(2)));
        let other = Sameness { holder: Holder::Caller([1; 32]), ..job(1) };
        assert_eq!(book.enter(other), Ok(Entered::New(3)), "another's credential may be worth more or less");
        assert_eq!(book.begin(), Some(1));
        assert_eq!(book.enter(job(1)), Ok(Entered::Joined(1)));
        book.ended(Timestamp::now(), view(1, Timestamp::now()));
        assert_eq!(book.enter(job(1)), Ok(Entered::New(4)));
    }

    #[test]
    fn so_many_are_at_work_so_many_wait_and_more_are_turned_away() {
        let mut book = Book::new(0, []);
        for n in 0..MAX_QUEUED {
            assert!(book.enter(job(n)).is_ok());
        }
        assert_eq!(book.enter(job(9999)), Err(Full));
        for n in 1..=MAX_RUNNING as u64 {
            assert_eq!(book.begin(), Some(n));
        }
        assert_eq!(book.begin(), None);
        assert!(book.enter(job(9999)).is_ok());
        book.ended(Timestamp::now(), view(3, Timestamp::now()));
        assert_eq!(book.begin(), Some(MAX_RUNNING as u64 + 1));
    }

    #[test]
    fn a_number_is_never_given_again() {
        let ended = view(7, Timestamp::now());
        let mut book = Book::new(12, [ended]);
        book.resume(20, job(1));
        assert_eq!(book.enter(job(2)), Ok(Entered::New(21)));
        assert_eq!(Book::new(12, []).enter(job(2)), Ok(Entered::New(12)));
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
