//! One node's part in a job: which blobs it shall hold, how far it is, and when it is told again.
//!
//! Knows nothing of: how it is told, clocks, other nodes.

use std::sync::Arc;
use std::time::Duration;

use shoal_model::{Node, Tick};
use shoal_proto::Stored;

/// How often in a row something is tried that brings nothing.
pub(super) const MAX_LOST: u32 = 6;
const MAX_FAILED: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A node that shall hold blobs, by their numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assignment {
    pub(super) node: Node,
    pub(super) layers: Vec<usize>,
}

/// A node that shall hold blobs, and how far it is.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) node: Node,
    /// One for each blob that it shall hold.
    pub(super) parts: Vec<Part>,
    state: State,
    n_lost: u32,
}

#[derive(Debug)]
enum State {
    /// To be told to store what it lacks, from then on.
    Waiting(Tick),
    /// It was told; these are the parts, in the order in which it was.
    Running(Vec<usize>),
    Over,
}

/// A blob at a target.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) layer: usize,
    /// Bytes that are there.
    pub(super) held: u64,
    /// The most that ever was.
    most: u64,
    pub(super) end: Option<Result<(), Arc<str>>>,
    /// What went wrong last.
    trouble: Option<Arc<str>>,
    n_failed: u32,
}

impl Target {
    /// From now on it may be told.
    pub(super) fn new(now: Tick, Assignment { node, layers }: Assignment) -> Self {
        let part = |layer| Part { layer, held: 0, most: 0, end: None, trouble: None, n_failed: 0 };
        let parts: Vec<_> = layers.into_iter().map(part).collect();
        let state = if parts.is_empty() { State::Over } else { State::Waiting(now) };
        Self { node, parts, state, n_lost: 0 }
    }

    /// Whether it holds all that it should.
    pub(super) fn is_whole(&self) -> bool {
        self.parts.iter().all(|it| it.end == Some(Ok(())))
    }

    /// Whether nothing more is done about it.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether it was told, and has not left since.
    pub(super) const fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// From when on it is to be told, if it is.
    pub(super) const fn waits_until(&self) -> Option<Tick> {
        match self.state {
            State::Waiting(from) => Some(from),
            State::Running(_) | State::Over => None,
        }
    }

    /// The blobs that it still lacks, which it is told to store.
    pub(super) fn begin(&mut self) -> Vec<usize> {
        let lacking = self.parts.iter().enumerate().filter(|(_, it)| it.end.is_none());
        let (numbers, layers) = lacking.map(|(number, it)| (number, it.layer)).unzip();
        self.state = State::Running(numbers);
        layers
    }

    /// What it says of blobs, by their places among those that it was told to store.
    pub(super) fn told(&mut self, stored: Vec<Stored>, is_excused: bool) {
        let State::Running(asked) = &self.state else { return };
        for Stored { index, held, end } in stored {
            let Some(part) = asked.get(index).and_then(|it| self.parts.get_mut(*it)) else { continue };
            // What it had before, and has lost since, is no progress the second time.
            if held > part.most {
                (self.n_lost, part.n_failed, part.most) = (0, 0, held);
            }
            part.held = held;
            match end {
                None => {}
                Some(Ok(())) => {
                    self.n_lost = 0;
                    part.end = Some(Ok(()));
                }
                Some(Err(why)) => {
                    part.n_failed += u32::from(!is_excused);
                    part.trouble = Some(why.into());
                }
            }
        }
    }

    /// It says no more, with or without a reason to.
    pub(super) fn left(&mut self, now: Tick, why: Option<String>) {
        if why.is_some() {
            self.n_lost += 1;
        }
        let why = why.map(Arc::<str>::from);
        for part in self.parts.iter_mut().filter(|it| it.end.is_none()) {
            if let Some(why) = &why {
                part.trouble = Some(why.clone());
            }
            if part.n_failed >= MAX_FAILED || self.n_lost >= MAX_LOST {
                part.give_up("not stored");
            }
        }
        let lacking = self.parts.iter().filter(|it| it.end.is_none());
        let n_tried = lacking.map(|it| it.n_failed.max(self.n_lost).max(1)).min();
        self.state = match n_tried {
            Some(n_tried) => State::Waiting(now.after(pause(n_tried))),
            None => State::Over,
        };
    }

    /// It is not waited for any longer.
    pub(super) fn give_up(&mut self, why: &str) {
        for part in self.parts.iter_mut().filter(|it| it.end.is_none()) {
            // The deadline says less than what held the blob up.
            part.give_up(why);
        }
        self.state = State::Over;
    }
}

impl Part {
    fn give_up(&mut self, otherwise: &str) {
        let why = self.trouble.take().unwrap_or_else(|| otherwise.into());
        self.end = Some(Err(why));
    }
}

/// How long is waited after so many failures in a row.
pub(super) fn pause(n_failed: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << n_failed.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}
