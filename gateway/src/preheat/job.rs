//! The life of one preheat job, as a machine: it is told what happened and says what to do.
//!
//! The image is resolved into blobs, the nodes are found, and each of these *targets* is told to store what it shall
//! hold, so many at once. A target that breaks off or is busy is told again after a while, and so is one that could
//! not get a blob; each a few times in a row, counted anew whenever it got on. At the deadline, or when it is
//! cancelled, the job ends with what there is.
//!
//! What came of it is kept for each blob at each target. The job *succeeded* where at least one target holds all that
//! it should, and nobody has cancelled it; what is missing elsewhere is said in either case, with its cause.
//!
//! Where other regions are to do the same, each has a *branch* ([`branch`](super::branch)). They are told once the image
//! is resolved, carry their parts out by themselves, and count like targets: the job waits for them until its deadline.
//!
//! Knows nothing of: sockets, clocks, registries, how anything is carried out.

use std::time::Duration;

use shoal_model::{Digest, Tick};
use shoal_proto::Stored;

use super::branch::Branch;
use super::target::{Assignment, MAX_LOST, Target, pause};
use crate::regions::{Link, RegionName, Told};

/// A blob of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    /// In bytes.
    pub(super) size: u64,
}

/// Why something did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setback {
    pub(super) why: String,
    /// Whether trying again would be of no use.
    pub(super) is_final: bool,
}

impl Setback {
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_final: false }
    }

    pub(super) fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_final: true }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// It begins, or a deadline of its own has come.
    Tick,
    /// The image is these blobs.
    Resolved(Result<Vec<Layer>, Setback>),
    /// These shall hold them.
    Assigned(Result<Vec<Assignment>, Setback>),
    /// How far a target is with what it was last told to store. What fails is excused where the hub is away by way of
    /// which it is read: it is tried until the hub is back.
    Told { target: usize, stored: Vec<Stored>, is_excused: bool },
    /// A target has come to the end of all that.
    Finished { target: usize },
    /// It was not told, or says no more.
    Lost { target: usize, why: String },
    /// Which of the other regions have been told, in the order of the branches.
    Linked(Vec<Link>),
    /// What one of them tells.
    Branch(Told),
    /// Somebody wants the job to end.
    Cancelled(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Find out which blobs the image has.
    Resolve,
    /// Have the other regions do the same.
    Order,
    /// Find out which nodes shall hold them.
    Assign,
    /// Have a target store these.
    Begin { target: usize, layers: Vec<usize> },
    /// The job is over: whoever was told need not go on.
    End,
}

/// What a job may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Targets at once.
    pub(super) targets: usize,
    /// For how long.
    pub(super) timeout: Duration,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Resolving(Trying),
    Assigning(Trying),
    Storing,
    Over(Verdict),
}

/// Something that is tried until it comes about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trying {
    n_failed: u32,
    /// When it is tried next; `None` while it is.
    again: Option<Tick>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) succeeded: bool,
    /// Who had it end, where somebody did.
    pub(super) cancelled_by: Option<String>,
    /// What is to be said about the whole.
    pub(super) errors: Vec<String>,
}

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    limits: Limits,
    deadline: Tick,
    phase: Phase,
    layers: Vec<Layer>,
    targets: Vec<Target>,
    branches: Vec<Branch>,
    /// Why there are no targets, where others go on without.
    without: Option<String>,
    n_running: usize,
}

impl Job {
    /// One that begins now, and has been waited for so long already; these other regions are to do the same.
    pub(super) fn new(now: Tick, limits: Limits, waited: Duration, regions: Vec<RegionName>) -> Self {
        Self {
            limits,
            deadline: now.after(limits.timeout.saturating_sub(waited)),
            phase: Phase::Resolving(Trying { n_failed: 0, again: Some(now) }),
            layers: Vec::new(),
            targets: Vec::new(),
            branches: regions.into_iter().map(Branch::new).collect(),
            without: None,
            n_running: 0,
        }
    }

    /// The blobs of the image, as soon as they are known.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Who shall hold them, as soon as that is known.
    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// What other regions do.
    pub(super) fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// How long it may go on.
    pub(super) fn time_left(&self, now: Tick) -> Duration {
        self.deadline.since(now)
    }

    /// How it ended, if it has.
    pub(super) fn verdict(&self) -> Option<&Verdict> {
        match &self.phase {
            Phase::Over(verdict) => Some(verdict),
            _ => None,
        }
    }

    /// What it is at, in a word.
    pub(super) const fn doing(&self) -> &'static str {
        match self.phase {
            Phase::Resolving(_) => "resolving",
            Phase::Assigning(_) => "assigning",
            Phase::Storing => "storing",
            Phase::Over(_) => "ended",
        }
    }

    /// Takes in what happened, and adds what is to be done.
    pub(super) fn on_event(&mut self, now: Tick, event: Event, actions: &mut Vec<Action>) {
        if self.verdict().is_some() {
            return;
        }
        match event {
            Event::Tick => {}
            Event::Resolved(res) => self.resolved(now, res, actions),
            Event::Assigned(res) => self.assigned(now, res, actions),
            // Nobody's turn comes by that.
            Event::Told { target, stored, is_excused } => return self.told(target, stored, is_excused),
            Event::Finished { target } => self.left(now, target, None),
            Event::Lost { target, why } => self.left(now, target, Some(why)),
            Event::Linked(links) => {
                self.branches.iter_mut().zip(links).for_each(|(it, link)| it.linked(link))
            }
            Event::Branch(told) => {
                if let Some(it) = self.branches.iter_mut().find(|it| it.region == told.region) {
                    it.told(told);
                }
            }
            Event::Cancelled(by) => return self.stop(&format!("cancelled by {by}"), Some(by), actions),
        }
        if self.verdict().is_none() {
            self.go_on(now, actions);
        }
    }

    /// When it wants to be told of the time.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        let own = match &self.phase {
            Phase::Over(_) => return None,
            Phase::Resolving(trying) | Phase::Assigning(trying) => trying.again,
            Phase::Storing if self.n_running < self.limits.targets => {
                self.targets.iter().filter_map(Target::waits_until).min()
            }
            Phase::Storing => None,
        };
        Some(own.map_or(self.deadline, |it| it.min(self.deadline)))
    }

    fn go_on(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if now >= self.deadline {
            let why = format!("not done within {} s", self.limits.timeout.as_secs());
            return self.stop(&why, None, actions);
        }
        let due = match &mut self.phase {
            Phase::Resolving(trying) => trying.is_due(now).then_some(Action::Resolve),
            Phase::Assigning(trying) => trying.is_due(now).then_some(Action::Assign),
            Phase::Storing => return self.begin_more(now, actions),
            Phase::Over(_) => None,
        };
        actions.extend(due);
    }

    fn resolved(&mut self, now: Tick, res: Result<Vec<Layer>, Setback>, actions: &mut Vec<Action>) {
        let Phase::Resolving(trying) = &mut self.phase else { return };
        match res {
            Ok(layers) if layers.is_empty() => self.fail("the image has no blobs".to_owned(), actions),
            Ok(layers) => {
                self.layers = layers;
                self.phase = Phase::Assigning(Trying { n_failed: 0, again: Some(now) });
                if !self.branches.is_empty() {
                    actions.push(Action::Order);
                }
            }
            Err(setback) => {
                if let Some(why) = trying.failed(now, setback) {
                    self.fail(why, actions);
                }
            }
        }
    }

    fn assigned(&mut self, now: Tick, res: Result<Vec<Assignment>, Setback>, actions: &mut Vec<Action>) {
        let Phase::Assigning(trying) = &mut self.phase else { return };
        match res {
            Ok(assignments) if assignments.is_empty() && self.branches.is_empty() => {
                self.fail("no node is meant: none has joined that fits".to_owned(), actions);
            }
            Ok(assignments) => {
                self.targets = assignments.into_iter().map(|it| Target::new(now, it)).collect();
                self.phase = Phase::Storing;
            }
            Err(setback) => match trying.failed(now, setback) {
                Some(why) if self.branches.is_empty() => self.fail(why, actions),
                Some(why) => {
                    self.without = Some(why);
                    self.phase = Phase::Storing;
                }
                None => {}
            },
        }
    }

    fn told(&mut self, target: usize, stored: Vec<Stored>, is_excused: bool) {
        let Some(it) = self.targets.get_mut(target) else { return };
        it.told(stored, is_excused);
    }

    fn left(&mut self, now: Tick, target: usize, why: Option<String>) {
        let Some(it) = self.targets.get_mut(target) else { return };
        if it.is_running() {
            self.n_running -= 1;
            it.left(now, why);
        }
    }

    fn begin_more(&mut self, now: Tick, actions: &mut Vec<Action>) {
        for (number, target) in self.targets.iter_mut().enumerate() {
            if self.n_running >= self.limits.targets {
                break;
            }
            if target.waits_until().is_some_and(|from| from <= now) {
                actions.push(Action::Begin { target: number, layers: target.begin() });
                self.n_running += 1;
            }
        }
        if self.targets.iter().all(Target::is_over) && self.branches.iter().all(Branch::is_over) {
            self.end(Vec::new(), None, actions);
        }
    }

    /// Ends with what there is.
    fn stop(&mut self, why: &str, cancelled_by: Option<String>, actions: &mut Vec<Action>) {
        self.targets.iter_mut().for_each(|it| it.give_up(why));
        self.branches.iter_mut().for_each(|it| it.give_up(why));
        self.end(vec![why.to_owned()], cancelled_by, actions);
    }

    fn fail(&mut self, why: String, actions: &mut Vec<Action>) {
        self.branches.iter_mut().for_each(|it| it.give_up(&why));
        self.phase = Phase::Over(Verdict { succeeded: false, cancelled_by: None, errors: vec![why] });
        actions.push(Action::End);
    }

    fn end(&mut self, mut errors: Vec<String>, cancelled_by: Option<String>, actions: &mut Vec<Action>) {
        let n_whole = self.targets.iter().filter(|it| it.is_whole()).count();
        let n_targets = self.targets.len();
        errors.extend(self.without.clone());
        if n_whole < n_targets {
            errors.push(format!("{n_whole} of {n_targets} nodes hold all that they should"));
        }
        if n_whole == 0 {
            errors.extend(self.first_cause());
        }
        let (n_branches, n_done) =
            (self.branches.len(), self.branches.iter().filter(|it| it.is_done()).count());
        if n_done < n_branches {
            errors.push(format!("{n_done} of {n_branches} other regions have done all that they should"));
            errors.extend(self.branches.iter().filter_map(Branch::fault));
        }
        let is_of_use = n_whole > 0 || self.branches.iter().any(Branch::is_of_use);
        let succeeded = is_of_use && cancelled_by.is_none();
        self.phase = Phase::Over(Verdict { succeeded, cancelled_by, errors });
        actions.push(Action::End);
    }

    fn first_cause(&self) -> Option<String> {
        self.targets.iter().find_map(|target| {
            target.parts.iter().find_map(|part| match &part.end {
                Some(Err(why)) => Some(format!("for example {}: {why}", target.node.id)),
                _ => None,
            })
        })
    }
}

impl Trying {
    /// Whether it is to be tried now; then it is.
    fn is_due(&mut self, now: Tick) -> bool {
        let is_due = self.again.is_some_and(|it| it <= now);
        if is_due {
            self.again = None;
        }
        is_due
    }

    /// Why it is given up, if it is.
    fn failed(&mut self, now: Tick, setback: Setback) -> Option<String> {
        self.n_failed += 1;
        if setback.is_final || self.n_failed >= MAX_LOST {
            return Some(setback.why);
        }
        self.again = Some(now.after(pause(self.n_failed)));
        None
    }
}

#[cfg(test)]
pub(super) mod tests {
    use shoal_model::{Node, NodeId, Place, Role};

    use super::super::branch::tests::{progress, told};
    use super::*;

    /// A job, what it last said is to be done, and what time it is.
    pub(in super::super) struct Played {
        pub(in super::super) job: Job,
        now: Tick,
        actions: Vec<Action>,
    }

    fn layers(n_layers: u8) -> Vec<Layer> {
        (0..n_layers).map(|n| Layer { digest: Digest::from_sha256([n; 32]), size: 100 }).collect()
    }

    fn assignment(name: &str, layers: Vec<usize>) -> Assignment {
        let address = "10.0.0.1:65002".into();
        let node = Node { id: NodeId::new(name), address, role: Role::Sidecar, place: Place::default() };
        Assignment { node, layers }
    }

    impl Played {
        fn new(at_once: usize, timeout: u64) -> Self {
            Self::beside(at_once, timeout, &[])
        }

        /// One that these other regions are to do the same as.
        fn beside(at_once: usize, timeout: u64, regions: &[&str]) -> Self {
            let limits = Limits { targets: at_once, timeout: Duration::from_secs(timeout) };
            let regions = regions.iter().map(|it| it.parse().unwrap()).collect();
            let job = Job::new(Tick(0), limits, Duration::ZERO, regions);
            let mut it = Self { job, now: Tick(0), actions: Vec::new() };
            it.feed(Event::Tick);
            assert_eq!(it.actions, [Action::Resolve]);
            it
        }

        /// One whose image has two blobs, which so many nodes shall hold.
        pub(in super::super) fn storing(n_nodes: usize, at_once: usize) -> Self {
            let mut it = Self::new(at_once, 600);
            it.feed(Event::Resolved(Ok(layers(2))));
            assert_eq!(it.actions, [Action::Assign]);
            let nodes = (0..n_nodes).map(|n| assignment(&format!("n{n}"), vec![0, 1])).collect();
            it.feed(Event::Assigned(Ok(nodes)));
            it
        }

        /// The same where these other regions do the same as so many nodes.
        fn storing_beside(n_nodes: usize, regions: &[&str]) -> Self {
            let mut it = Self::beside(10, 600, regions);
            it.feed(Event::Resolved(Ok(layers(2))));
            assert_eq!(it.actions, [Action::Order, Action::Assign]);
            let nodes = (0..n_nodes).map(|n| assignment(&format!("n{n}"), vec![0, 1])).collect();
            it.feed(Event::Assigned(Ok(nodes)));
            it
        }

        fn branch(&mut self, region: &str, nodes: u64, done: u64, succeeded: Option<bool>) -> &[Action] {
            self.feed(Event::Branch(told(region, 1, progress(nodes, done, succeeded))))
        }

        pub(in super::super) fn feed(&mut self, event: Event) -> &[Action] {
            self.actions.clear();
            self.job.on_event(self.now, event, &mut self.actions);
            &self.actions
        }

        /// Lets time pass until it wants to be told of it.
        fn wait(&mut self) -> &[Action] {
            self.now = self.job.next_deadline().unwrap();
            self.feed(Event::Tick)
        }

        pub(in super::super) fn tell(
            &mut self,
            target: usize,
            index: usize,
            held: u64,
            end: Option<Result<(), &str>>,
        ) {
            let end = end.map(|it| it.map_err(str::to_owned));
            self.feed(Event::Told { target, stored: vec![Stored { index, held, end }], is_excused: false });
        }

        /// The same of a blob that is not to be had while the hub is away.
        fn excuse(&mut self, target: usize, index: usize, why: &str) {
            let stored = vec![Stored { index, held: 0, end: Some(Err(why.to_owned())) }];
            self.feed(Event::Told { target, stored, is_excused: true });
        }

        pub(in super::super) fn finish(&mut self, target: usize) -> &[Action] {
            for index in 0..2 {
                self.tell(target, index, 100, Some(Ok(())));
            }
            self.feed(Event::Finished { target })
        }

        fn lose(&mut self, target: usize) -> &[Action] {
            self.feed(Event::Lost { target, why: "unreachable".to_owned() })
        }

        #[track_caller]
        fn ended(&self, succeeded: bool, errors: &[&str]) {
            assert_eq!(self.actions.last(), Some(&Action::End));
            let verdict = self.job.verdict().unwrap();
            assert_eq!(verdict.succeeded, succeeded, "{verdict:?}");
            let said: Vec<_> = verdict.errors.iter().map(String::as_str).collect();
            assert_eq!(said, errors);
        }

        fn ends(&self, target: usize) -> Vec<Option<Result<(), &str>>> {
            let parts = self.job.targets()[target].parts.iter();
            parts.map(|it| it.end.as_ref().map(|it| it.as_ref().copied().map_err(|it| &**it))).collect()
        }
    }

    fn begin(target: usize, layers: &[usize]) -> Action {
        Action::Begin { target, layers: layers.to_vec() }
    }

    #[test]
    fn a_job_ends_well_when_all_nodes_hold_the_image() {
        let mut it = Played::storing(2, 10);
        assert_eq!(it.actions, [begin(0, &[0, 1]), begin(1, &[0, 1])]);
        it.finish(0);
        assert_eq!(it.job.verdict(), None);
        it.finish(1);
        it.ended(true, &[]);
        assert_eq!(it.job.next_deadline(), None);
    }

    #[test]
    fn so_many_nodes_are_at_work_at_once_and_no_more() {
        let mut it = Played::storing(5, 2);
        assert_eq!(it.actions, [begin(0, &[0, 1]), begin(1, &[0, 1])]);
        assert_eq!(it.finish(1), [begin(2, &[0, 1])]);
        assert_eq!(it.lose(0), [begin(3, &[0, 1])], "who broke off waits for its next turn");
    }

    #[test]
    fn a_node_that_breaks_off_is_told_what_it_lacks_after_ever_longer_pauses() {
        let mut it = Played::storing(1, 10);
        it.tell(0, 0, 100, Some(Ok(())));
        let mut pauses = Vec::new();
        while it.job.verdict().is_none() {
            it.lose(0);
            if it.job.verdict().is_none() {
                let before = it.now;
                assert_eq!(it.wait(), [begin(0, &[1])]);
                pauses.push(it.now.since(before).as_secs());
            }
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16]);
        it.ended(false, &["0 of 1 nodes hold all that they should", "for example n0: unreachable"]);
        assert_eq!(it.ends(0), [Some(Ok(())), Some(Err("unreachable"))]);
    }

    #[test]
    fn a_node_that_gets_on_is_not_given_up() {
        let mut it = Played::storing(1, 10);
        for n in 0..20 {
            it.tell(0, 0, n + 1, None);
            it.lose(0);
            assert_eq!(it.wait(), [begin(0, &[0, 1])]);
        }
        it.finish(0);
        it.ended(true, &[]);
    }

    #[test]
    fn a_blob_that_cannot_be_had_fails_with_its_cause_and_the_others_stay() {
        let mut it = Played::storing(2, 10);
        it.finish(1);
        for n_asked in [2, 1, 1] {
            let missing = n_asked - 1;
            if n_asked == 2 {
                it.tell(0, 0, 100, Some(Ok(())));
            }
            // Bytes that turn out to be worth nothing are no progress when they come again.
            it.tell(0, missing, 50, None);
            it.tell(0, missing, 0, Some(Err("the registry answered 404")));
            it.feed(Event::Finished { target: 0 });
            if it.job.verdict().is_none() {
                assert_eq!(it.wait(), [begin(0, &[1])]);
            }
        }
        it.ended(true, &["1 of 2 nodes hold all that they should"]);
        assert_eq!(it.ends(0), [Some(Ok(())), Some(Err("the registry answered 404"))]);
    }

    #[test]
    fn while_the_hub_is_away_nothing_is_given_up_before_the_deadline() {
        let mut it = Played::storing(1, 10);
        it.tell(0, 0, 100, Some(Ok(())));
        let mut lacking = 1;
        for _ in 0..20 {
            it.excuse(0, lacking, "the hub is away");
            it.feed(Event::Finished { target: 0 });
            assert_eq!(it.wait(), [begin(0, &[1])]);
            lacking = 0;
        }
        it.tell(0, 0, 100, Some(Ok(())));
        it.feed(Event::Finished { target: 0 });
        it.ended(true, &[]);
    }

    #[test]
    fn at_the_deadline_it_ends_with_what_there_is() {
        let mut it = Played::storing(2, 1);
        it.finish(0);
        assert_eq!(it.wait(), [Action::End]);
        it.ended(true, &["not done within 600 s", "1 of 2 nodes hold all that they should"]);
        assert_eq!(it.ends(1), [Some(Err("not done within 600 s")); 2]);
    }

    #[test]
    fn one_that_is_cancelled_has_failed_and_says_who_did_it() {
        let mut it = Played::storing(2, 10);
        it.finish(0);
        let actions = it.feed(Event::Cancelled("ann".to_owned()));
        assert_eq!(actions, [Action::End]);
        it.ended(false, &["cancelled by ann", "1 of 2 nodes hold all that they should"]);
        assert_eq!(it.feed(Event::Tick), [], "nothing more is done");
    }

    #[test]
    fn what_the_registry_refuses_ends_it_and_what_may_pass_is_tried_again() {
        let mut it = Played::new(10, 600);
        it.feed(Event::Resolved(Err(Setback::passing("busy"))));
        assert_eq!(it.wait(), [Action::Resolve]);
        it.feed(Event::Resolved(Err(Setback::lasting("the registry answered 401"))));
        it.ended(false, &["the registry answered 401"]);
        let mut it = Played::new(10, 600);
        for _ in 1..MAX_LOST {
            it.feed(Event::Resolved(Err(Setback::passing("busy"))));
            assert_eq!(it.wait(), [Action::Resolve]);
        }
        it.feed(Event::Resolved(Err(Setback::passing("busy"))));
        it.ended(false, &["busy"]);
    }

    #[test]
    fn without_a_node_that_fits_it_fails() {
        let mut it = Played::new(10, 600);
        it.feed(Event::Resolved(Ok(layers(1))));
        it.feed(Event::Assigned(Ok(Vec::new())));
        it.ended(false, &["no node is meant: none has joined that fits"]);
    }

    #[test]
    fn what_a_node_says_of_blobs_that_it_was_not_told_of_is_not_heard() {
        let mut it = Played::storing(1, 10);
        it.tell(0, 7, 100, Some(Ok(())));
        it.tell(9, 0, 100, Some(Ok(())));
        assert_eq!(it.ends(0), [None, None]);
    }

    fn absent() -> Link {
        Link::Absent("none of its gateways is connected".to_owned())
    }

    #[test]
    fn a_job_waits_for_other_regions_and_ends_well_when_all_are_done() {
        let mut it = Played::storing_beside(1, &["eu", "us"]);
        it.branch("eu", 3, 3, Some(true));
        it.finish(0);
        assert_eq!(it.branch("us", 2, 1, None), []);
        assert_eq!(it.branch("nowhere", 2, 2, Some(true)), []);
        it.branch("us", 2, 2, Some(true));
        it.ended(true, &[]);
    }

    #[test]
    fn a_gateway_without_nodes_of_its_own_leaves_it_to_the_regions() {
        let mut it = Played::storing_beside(0, &["eu"]);
        assert_eq!(it.job.verdict(), None);
        it.branch("eu", 1, 1, Some(true));
        it.ended(true, &[]);
    }

    #[test]
    fn without_an_answer_of_its_own_schedulers_the_regions_go_on_and_it_is_said() {
        let mut it = Played::beside(10, 600, &["eu"]);
        it.feed(Event::Resolved(Ok(layers(1))));
        it.feed(Event::Assigned(Err(Setback::lasting("no scheduler answers"))));
        assert_eq!(it.job.verdict(), None);
        it.branch("eu", 1, 1, Some(true));
        it.ended(true, &["no scheduler answers"]);
    }

    #[test]
    fn of_regions_that_have_not_done_all_it_is_said_which_and_why() {
        let mut it = Played::storing_beside(1, &["ap", "eu", "us"]);
        it.finish(0);
        it.feed(Event::Linked(vec![Link::Told, absent(), Link::Told]));
        it.branch("ap", 2, 2, Some(true));
        it.branch("us", 2, 1, Some(true));
        assert_eq!(it.job.verdict(), None, "one may come back");
        it.wait();
        it.ended(
            true,
            &[
                "not done within 600 s",
                "1 of 3 other regions have done all that they should",
                "region eu: not done within 600 s; none of its gateways is connected",
                "region us: 1 of 2 nodes hold all that they should",
            ],
        );
    }

    #[test]
    fn a_region_that_comes_back_in_time_has_its_part_counted() {
        let mut it = Played::storing_beside(0, &["eu"]);
        it.feed(Event::Linked(vec![Link::Told]));
        it.branch("eu", 2, 1, None);
        it.feed(Event::Linked(vec![absent()]));
        assert_eq!(it.job.branches()[0].doing(), "cut off");
        it.feed(Event::Linked(vec![Link::Told]));
        it.feed(Event::Branch(told("eu", 2, progress(2, 2, Some(true)))));
        it.ended(true, &[]);
    }

    #[test]
    fn cancelling_gives_up_on_the_regions_too() {
        let mut it = Played::storing_beside(1, &["eu"]);
        it.finish(0);
        it.branch("eu", 2, 1, None);
        assert_eq!(it.feed(Event::Cancelled("ann".to_owned())), [Action::End]);
        it.ended(
            false,
            &[
                "cancelled by ann",
                "0 of 1 other regions have done all that they should",
                "region eu: 1 of 2 nodes hold all that they should; cancelled by ann",
            ],
        );
    }
}
