//! What the hub is told of a job that it has ordered: each time what has changed.
//!
//! Counts are told as they are. Of the nodes at which blobs have come to their end, each is told once on a stream, and
//! only as many as the hub wants to hear of.
//!
//! Knows nothing of: streams, clocks.

use std::collections::BTreeSet;

use shoal_peer::store::cause;
use shoal_proto::{BlobAtNode, OrderProgress};

use super::choice;
use super::job::Job;
use super::view::{self, Held};

/// What one stream was told of a job.
#[derive(Debug, Default)]
pub(super) struct Telling {
    last: Option<OrderProgress>,
    rows: BTreeSet<(usize, usize)>,
    /// How many of them hold the blob, and how many do not.
    n_rows: [usize; 2],
}

impl Telling {
    /// What is new about a job, if anything is.
    pub(super) fn news(&mut self, number: u64, job: &Job, max_rows: u32) -> Option<OrderProgress> {
        let (rows, rows_left_out) = self.new_rows(job, max_rows as usize);
        let Held { progress, layers, .. } = Held::counts(job);
        let verdict = job.verdict();
        let errors = verdict.map(|it| it.errors.iter().cloned().map(cause).collect::<Vec<_>>());
        let errors = errors.unwrap_or_default().into_iter().take(OrderProgress::MAX_ERRORS);
        let told = OrderProgress {
            job: number,
            anew: false,
            doing: job.doing().to_owned(),
            bytes: progress.bytes,
            bytes_held: progress.bytes_held,
            nodes: progress.nodes as u64,
            nodes_done: progress.nodes_done as u64,
            nodes_failed: progress.nodes_failed as u64,
            blobs: layers.iter().map(|it| [it.nodes_done as u64, it.nodes_failed as u64]).collect(),
            rows: Vec::new(),
            rows_left_out,
            errors: errors.collect(),
            succeeded: verdict.map(|it| it.succeeded),
        };
        let anew = self.last.is_none();
        if rows.is_empty() && self.last.as_ref() == Some(&told) {
            return None;
        }
        self.last = Some(told.clone());
        Some(OrderProgress { anew, rows, ..told })
    }

    fn new_rows(&mut self, job: &Job, max_rows: usize) -> (Vec<BlobAtNode>, u64) {
        let max_rows = max_rows.min(OrderProgress::MAX_ROWS / 2);
        let (mut rows, mut n_left_out) = (Vec::new(), 0);
        for (at, target, part) in view::parts(job) {
            let Some(end) = &part.end else { continue };
            if self.rows.contains(&at) {
                continue;
            }
            let [held, failed] = &mut self.n_rows;
            let n_rows = if end.is_ok() { held } else { failed };
            if *n_rows >= max_rows {
                n_left_out += 1;
                continue;
            }
            *n_rows += 1;
            self.rows.insert(at);
            rows.push(BlobAtNode {
                blob: part.layer,
                node: target.node.id.to_string(),
                ip: choice::ip(&target.node).map(|it| it.to_string()).unwrap_or_default(),
                failed: end.as_ref().err().map(|it| cause(it.to_string())),
            });
        }
        (rows, n_left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::tests::Played;
    use super::*;

    fn nodes(it: &OrderProgress) -> Vec<(&str, usize, Option<&str>)> {
        it.rows.iter().map(|it| (it.node.as_str(), it.blob, it.failed.as_deref())).collect()
    }

    #[test]
    fn what_has_changed_is_told_once_and_nothing_where_nothing_has() {
        let (mut it, mut telling) = (Played::storing(2, 10), Telling::default());
        let first = telling.news(7, &it.job, 100).unwrap();
        assert_eq!((first.job, first.anew, first.nodes, first.bytes), (7, true, 2, 400));
        assert_eq!(telling.news(7, &it.job, 100), None);
        it.tell(0, 0, 60, None);
        let more = telling.news(7, &it.job, 100).unwrap();
        assert_eq!((more.anew, more.bytes_held, more.rows.len()), (false, 60, 0));
        it.tell(0, 0, 100, Some(Ok(())));
        it.tell(1, 1, 0, Some(Err("the disk is full")));
        let more = telling.news(7, &it.job, 100).unwrap();
        assert_eq!((nodes(&more), &more.blobs[..]), (vec![("n0", 0, None)], &[[1, 0], [0, 0]][..]));
        it.feed(super::super::job::Event::Cancelled("ann".to_owned()));
        let last = telling.news(7, &it.job, 100).unwrap();
        assert_eq!((last.doing.as_str(), last.succeeded, last.nodes_failed), ("ended", Some(false), 2));
        let failed = [("n0", 1, Some("cancelled by ann")), ("n1", 0, Some("cancelled by ann"))];
        assert_eq!(nodes(&last), [&failed[..], &[("n1", 1, Some("the disk is full"))]].concat());
        assert_eq!(telling.news(7, &it.job, 100), None);
    }

    #[test]
    fn of_either_kind_so_many_rows_are_told_and_the_rest_counted() {
        let (mut it, mut telling) = (Played::storing(3, 10), Telling::default());
        it.finish(0);
        it.finish(1);
        it.tell(2, 0, 0, None);
        it.feed(super::super::job::Event::Cancelled("ann".to_owned()));
        let told = telling.news(7, &it.job, 1).unwrap();
        assert_eq!((told.rows.len(), told.rows_left_out), (2, 4));
        assert_eq!(telling.news(7, &it.job, 1), None);
    }
}
