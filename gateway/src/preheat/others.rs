//! The jobs of the region's other gateways, as each of them has told, and which of them wait for somebody to take them
//! over.
//!
//! A gateway tells of the jobs that it has, and nobody else's. What it told stays when it is silent, so that its jobs can
//! still be seen; what it told is void when it tells anew. Two may tell of one job, where one has taken it over and the
//! other does not know yet: then an ending counts before anything else, and after that whoever answers.
//!
//! An *orphan* has not ended, and nobody has it but gateways that are gone. Whether this one may take it up the lease on
//! it decides, and not what is known here.
//!
//! Knows nothing of: sockets, Redis, clocks, how a job is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_model::NodeId;

use super::book::MAX_JOBS;
use super::request::Asked;
use super::view::{JobView, State};
use crate::sisters::Standing;

/// What the others have told.
#[derive(Debug, Default)]
pub(super) struct Others(BTreeMap<NodeId, Told>);

/// The jobs of one gateway.
type Told = BTreeMap<u64, Arc<JobView>>;

impl Others {
    // === What is told ===

    /// A gateway begins to tell of all her jobs.
    pub(super) fn begin(&mut self, gateway: &NodeId) {
        self.0.insert(gateway.clone(), Told::new());
    }

    /// A gateway has this job. More than one may have are not noted.
    pub(super) fn tell(&mut self, gateway: &NodeId, job: JobView) {
        let Some(told) = self.0.get_mut(gateway) else { return };
        if told.len() < MAX_JOBS || told.contains_key(&job.id) {
            told.insert(job.id, Arc::new(job));
        }
    }

    /// A gateway has this job no more.
    pub(super) fn drop_job(&mut self, gateway: &NodeId, id: u64) {
        if let Some(told) = self.0.get_mut(gateway) {
            told.remove(&id);
        }
    }

    /// Forgets the jobs of gateways that nobody knows any more, for whom `standing` is `None`; and those of gateways that
    /// are gone which somebody else has by now, who may be this gateway.
    pub(super) fn tidy(
        &mut self,
        standing: impl Fn(&NodeId) -> Option<Standing>,
        is_own: impl Fn(u64) -> bool,
    ) {
        self.0.retain(|it, _| standing(it).is_some());
        let (gone, there): (Vec<_>, Vec<_>) =
            self.0.iter_mut().partition(|(it, _)| standing(it) == Some(Standing::Gone));
        for (_, told) in gone {
            told.retain(|id, _| !is_own(*id) && !there.iter().any(|(_, it)| it.contains_key(id)));
        }
    }

    // === What follows ===

    /// A job, and whose it is.
    pub(super) fn get(
        &self,
        id: u64,
        standing: impl Fn(&NodeId) -> Standing,
    ) -> Option<(&NodeId, &Arc<JobView>)> {
        let all = self.0.iter().filter_map(|(gateway, told)| Some((gateway, told.get(&id)?)));
        all.max_by_key(|(gateway, job)| (job.state != State::Pending, standing(gateway)))
    }

    /// All jobs, each once.
    pub(super) fn all(&self, standing: impl Fn(&NodeId) -> Standing) -> Vec<Arc<JobView>> {
        let ids: BTreeSet<_> = self.0.values().flat_map(BTreeMap::keys).copied().collect();
        ids.into_iter().filter_map(|id| self.get(id, &standing)).map(|(_, job)| job.clone()).collect()
    }

    /// Those that nobody carries out any more, the oldest first, each with whose it was.
    pub(super) fn orphans(&self, standing: impl Fn(&NodeId) -> Standing) -> Vec<(NodeId, Arc<JobView>)> {
        let is_gone = |it: &NodeId| standing(it) == Standing::Gone;
        let gone = self.0.iter().filter(|(gateway, _)| is_gone(gateway));
        let ids: BTreeSet<_> = gone.flat_map(|(_, told)| told.keys().copied()).collect();
        let orphan = |id| {
            self.get(id, &standing).filter(|(gateway, job)| {
                let has = |(it, told): (&NodeId, &Told)| !is_gone(it) && told.contains_key(&id);
                job.state == State::Pending && is_gone(gateway) && !self.0.iter().any(has)
            })
        };
        ids.into_iter().filter_map(orphan).map(|(gateway, job)| (gateway.clone(), job.clone())).collect()
    }

    /// A job that has not ended and does what is asked for, where no caller's own credential makes a difference.
    pub(super) fn same(
        &self,
        asked: &Asked,
        needs_credential: bool,
        standing: impl Fn(&NodeId) -> Standing,
    ) -> Option<u64> {
        let all = self.0.iter().flat_map(|(gateway, told)| told.values().map(move |job| (gateway, job)));
        let fits = |(gateway, job): &(&NodeId, &Arc<JobView>)| {
            job.state == State::Pending
                && job.request.is_same_work(asked)
                && !(needs_credential && job.has_credential)
                && standing(gateway) == Standing::Answers
        };
        all.into_iter().find(fits).map(|(_, job)| job.id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Request;
    use super::*;
    use crate::timestamp::Timestamp;

    const PENDING: State = State::Pending;
    const SUCCESS: State = State::Success;

    fn job(id: u64, state: State) -> JobView {
        let asked = Asked { image: format!("a.example/b:{id}"), ..Asked::default() };
        let request = Request::new(asked, |it| it.parse().ok()).unwrap();
        JobView { state, ..JobView::new(id, "ann".to_owned(), &request, Timestamp::of_millis(1)) }
    }

    /// What these gateways have told, each with a job's number and state.
    fn told(all: &[(&str, u64, State)]) -> Others {
        let mut others = Others::default();
        for (gateway, _, _) in all {
            others.begin(&NodeId::new(gateway));
        }
        for (gateway, id, state) in all {
            others.tell(&NodeId::new(gateway), job(*id, *state));
        }
        others
    }

    /// Names say how gateways are.
    fn standing(gateway: &NodeId) -> Standing {
        match gateway.as_str() {
            it if it.starts_with("gone") => Standing::Gone,
            it if it.starts_with("silent") => Standing::Silent,
            _ => Standing::Answers,
        }
    }

    #[test]
    fn of_one_job_an_ending_counts_and_then_whoever_answers() {
        #[track_caller]
        fn check(all: &[(&str, u64, State)], expected: &str, orphans: &[u64]) {
            let others = told(all);
            let (gateway, _) = others.get(7, standing).unwrap();
            assert_eq!(gateway.as_str(), expected);
            let ids: Vec<_> = others.orphans(standing).iter().map(|(_, it)| it.id).collect();
            assert_eq!(ids, orphans);
            assert_eq!(others.all(standing).len(), 1);
        }
        check(&[("a", 7, PENDING)], "a", &[]);
        check(&[("gone", 7, PENDING)], "gone", &[7]);
        check(&[("gone", 7, SUCCESS)], "gone", &[]);
        check(&[("silent", 7, PENDING)], "silent", &[]);
        check(&[("gone", 7, PENDING), ("gone-too", 7, PENDING)], "gone-too", &[7]);
        check(&[("gone", 7, PENDING), ("a", 7, PENDING)], "a", &[]);
        check(&[("gone", 7, PENDING), ("silent", 7, PENDING)], "silent", &[]);
        check(&[("gone", 7, SUCCESS), ("a", 7, PENDING)], "gone", &[]);
        check(&[("gone", 7, PENDING), ("gone-too", 7, SUCCESS)], "gone-too", &[]);
    }

    #[test]
    fn what_is_told_anew_makes_the_old_void_and_what_is_dropped_is_gone() {
        let (a, b) = (NodeId::new("a"), NodeId::new("b"));
        let mut others = told(&[("a", 1, PENDING), ("a", 2, SUCCESS), ("b", 3, PENDING)]);
        others.drop_job(&a, 1);
        assert!(others.get(1, standing).is_none() && others.get(2, standing).is_some());
        others.begin(&a);
        assert!(others.get(2, standing).is_none());
        others.tidy(|it| (*it != b).then(|| standing(it)), |_| false);
        assert!(others.all(standing).is_empty());
        others.tell(&b, job(4, PENDING));
        assert!(others.get(4, standing).is_none(), "who has not begun tells nothing");
    }

    #[test]
    fn who_is_gone_has_no_job_that_another_has_by_now() {
        let mut others =
            told(&[("gone", 1, PENDING), ("gone", 2, PENDING), ("gone", 3, PENDING), ("silent", 1, PENDING)]);
        others.tidy(|it| Some(standing(it)), |id| id == 2);
        others.drop_job(&NodeId::new("silent"), 1);
        let left: Vec<_> = others.all(standing).iter().map(|it| it.id).collect();
        assert_eq!(left, [3]);
    }

    #[test]
    fn orphans_come_oldest_first_and_there_is_a_bound() {
        let gone = NodeId::new("gone");
        let mut others = told(&[("gone", 9, PENDING), ("gone", 3, PENDING)]);
        let ids = |it: &Others| it.orphans(standing).iter().map(|(_, it)| it.id).collect::<Vec<_>>();
        assert_eq!(ids(&others), [3, 9]);
        (10..10 + MAX_JOBS as u64).for_each(|id| others.tell(&gone, job(id, PENDING)));
        assert_eq!(ids(&others).len(), MAX_JOBS);
        others.tell(&gone, job(9, SUCCESS));
        assert_eq!(ids(&others).len(), MAX_JOBS - 1, "what is noted is still brought up to date");
    }

    #[test]
    fn a_request_joins_a_job_of_whoever_answers_unless_a_credential_makes_the_difference() {
        #[track_caller]
        fn check(gateway: &str, tag: u64, (comes_with, needs): (bool, bool), expected: Option<u64>) {
            let mut others = Others::default();
            others.begin(&NodeId::new(gateway));
            let credential = JobView { has_credential: comes_with, ..job(7, PENDING) };
            others.tell(&NodeId::new(gateway), credential);
            let asked = Asked { nodes: Some(3), ..job(tag, PENDING).request };
            assert_eq!(others.same(&asked, needs, standing), expected, "{gateway} {tag} {comes_with}");
        }
        check("a", 7, (false, true), Some(7));
        check("a", 8, (false, true), None);
        check("a", 7, (true, true), None);
        check("a", 7, (true, false), Some(7));
        check("silent", 7, (false, true), None);
        check("gone", 7, (false, true), None);
        let ended = told(&[("a", 7, SUCCESS)]);
        assert_eq!(ended.same(&job(7, PENDING).request, true, standing), None);
    }
}
