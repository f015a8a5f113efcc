//! What the hub has ordered of this region, by one of its gateways.
//!
//! An order is a job whose image is resolved already: the hub says which blobs it has, and gives tickets to read them.
//! It is carried out as any job, but is not written down, since the hub knows it and orders it anew. It goes on while the
//! hub is cut off, until its own deadline. Whatever the hub does not order any more is stopped.
//!
//! The hub can have blobs put on nodes by that, of registries that are read by way of it. Who reads them there is
//! opened for himself, as ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_model::Digest;
use shoal_ops::tasks::Tasks;
use shoal_proto::{OrderProgress, PreheatOrder, PreheatWish, RegionalOrders};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Means;
use super::request::{Asked, Request};
use super::run::{Origin, Progressing, Runner};
use super::telling::Telling;

/// The orders of one gateway of the hub.
pub(crate) struct Ordered {
    means: Arc<Means>,
    tasks: Tasks,
    works: BTreeMap<u64, Work>,
}

/// An order that is carried out.
struct Work {
    wish: PreheatWish,
    blobs: Vec<(Digest, u64)>,
    max_rows: u32,
    doing: Doing,
    telling: Telling,
}

enum Doing {
    /// It cannot be; all that is wrong, and whether that has been told.
    Refused {
        faults: Vec<String>,
        is_told: bool,
    },
    Running {
        progressing: Arc<Progressing>,
        _until_dropped: DropGuard,
    },
}

impl Ordered {
    pub(super) const fn new(means: Arc<Means>, tasks: Tasks) -> Self {
        Self { means, tasks, works: BTreeMap::new() }
    }

    /// These are all orders that stand.
    pub(crate) fn stand(&mut self, RegionalOrders(orders): RegionalOrders) {
        orders.iter().for_each(|it| self.entrust(it));
        let mut before = std::mem::take(&mut self.works);
        for order in orders.into_iter().filter(|it| it.carry_out) {
            let job = order.job;
            let known = before.remove(&job).filter(|it| it.is_for(&order));
            let work = known.unwrap_or_else(|| self.begin(order));
            self.works.insert(job, work);
        }
        before.keys().for_each(|job| tracing::info!(job, "the hub's preheat order stands no more"));
    }

    /// Whoever is told from now on knows nothing.
    pub(crate) fn begin_to_tell(&mut self) {
        for work in self.works.values_mut() {
            work.telling = Telling::default();
            if let Doing::Refused { is_told, .. } = &mut work.doing {
                *is_told = false;
            }
        }
    }

    /// What has changed since it was told last.
    pub(crate) fn news(&mut self) -> Vec<OrderProgress> {
        self.works.iter_mut().filter_map(|(job, work)| work.news(*job)).collect()
    }

    /// What the tickets of an order open can be read from now on, by whichever gateway of the region is to.
    fn entrust(&self, order: &PreheatOrder) {
        let Ok(request) = self.request(order) else { return };
        let Some(upstream) = self.means.gate.upstream(&request.image.registry) else { return };
        for blob in &order.blobs {
            upstream.entrust(&request.image.repository, blob.digest, &blob.ticket, blob.ticket_lives);
        }
    }

    fn request(&self, order: &PreheatOrder) -> Result<Request, Vec<String>> {
        let PreheatWish { image, scope, zone, ips, count, percentage, blobs_at_once, nodes_at_once } =
            order.wish.clone();
        let asked = Asked {
            image,
            scope: Some(scope),
            zone,
            ips,
            count,
            percentage,
            layers: Some(blobs_at_once),
            nodes: Some(nodes_at_once),
            timeout: Some(order.left.max(Duration::from_secs(1))),
            ..Asked::default()
        };
        Request::new(asked, |host| self.means.gate.registry_named(host))
    }

    fn begin(&self, order: PreheatOrder) -> Work {
        let request = self.request(&order);
        let PreheatOrder { job, wish, blobs, max_rows, .. } = order;
        let blobs: Vec<_> = blobs.iter().map(|it| (it.digest, it.size)).collect();
        tracing::info!(job, image = wish.image, scope = wish.scope, "the hub orders a preheat");
        let doing = match request {
            Ok(request) => self.run(request, blobs.clone()),
            Err(faults) => Doing::Refused { faults, is_told: false },
        };
        Work { wish, blobs, max_rows, doing, telling: Telling::default() }
    }

    fn run(&self, request: Request, blobs: Vec<(Digest, u64)>) -> Doing {
        let progressing = Arc::new(Progressing::new(request));
        progressing.begin(Duration::ZERO, Vec::new());
        let running = Runner::run(self.means.clone(), progressing.clone(), Origin::Hub(blobs));
        let (dropped, stopping) = (CancellationToken::new(), self.tasks.stopping());
        let until_dropped = dropped.clone();
        self.tasks.spawn_infallible("ordered preheat", async move {
            tokio::select! {
                () = running => {}
                () = until_dropped.cancelled() => {}
                () = stopping.cancelled() => {}
            }
        });
        Doing::Running { progressing, _until_dropped: dropped.drop_guard() }
    }
}

impl Work {
    /// Whether it is what is ordered still.
    fn is_for(&self, order: &PreheatOrder) -> bool {
        let blobs = order.blobs.iter().map(|it| (it.digest, it.size));
        self.wish == order.wish && self.max_rows == order.max_rows && blobs.eq(self.blobs.iter().copied())
    }

    fn news(&mut self, job: u64) -> Option<OrderProgress> {
        match &mut self.doing {
            Doing::Refused { is_told: true, .. } => None,
            Doing::Refused { faults, is_told } => {
                *is_told = true;
                Some(OrderProgress {
                    job,
                    anew: true,
                    doing: "ended".to_owned(),
                    errors: faults.iter().take(OrderProgress::MAX_ERRORS).cloned().collect(),
                    succeeded: Some(false),
                    ..OrderProgress::default()
                })
            }
            Doing::Running { progressing, .. } => {
                let job_at_work = progressing.job();
                self.telling.news(job, job_at_work.as_ref()?, self.max_rows)
            }
        }
    }
}
