//! The region as people see it: which blobs it holds, wants or seeds, each of them a *task*, and which nodes there are.
//!
//! Schedulers know who holds and wants what ([`census`](crate::census)); this gateway adds what it knows by itself: who
//! owns a blob, which repositories it was opened for, what came and went ([`ledger`](crate::ledger)). What is asked is
//! read ([`query`]) and shown ([`view`]) apart from where it comes from; [`api`] has the routes. What the region holds can
//! be removed everywhere ([`removal`]), and with it what is known of a repository ([`purge`]).
//!
//! Lists have pages, and each goes on after the last name of the one before it: whatever comes and goes meanwhile, nothing
//! is seen twice, and no page costs more than another.

pub(crate) mod api;
mod overview;
mod purge;
mod query;
mod removal;
mod swarm;
mod view;

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_blobstore::{Store, Summary};
use shoal_model::{BlobKey, Node, TrustGroup};
use shoal_oci::RegistryName;
use shoal_peer::client::PeerClient;
use shoal_proto::{BlobsRequest, NodesRequest, SwarmRequest};
use shoal_swarm::table::{self, CloseUp, Sought, Stage};

use crate::census::{Census, Counted};
use crate::gate::Gate;
use crate::hub::Hub;
use crate::ledger::Ledger;
use crate::mirror::Mirror;
use crate::regions::Roll;
use crate::seed::Seeder;
use crate::shelf::SeedingShelf;
use crate::sisters::{Sisters, Standing};
use overview::{FleetView, GatewayView};
use query::{NodesQuery, TasksQuery, Within};
use swarm::SwarmView;
use view::{HubView, NodesView, RegionsView, TaskView, TasksView};

/// Where all that is shown is known.
pub(crate) struct Means {
    pub(crate) census: Arc<Census>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) sisters: Sisters,
    pub(crate) seeder: Seeder,
    pub(crate) store: Store,
    /// What this gateway has of blobs is removed by it, and what others have by these.
    pub(crate) shelf: Arc<SeedingShelf>,
    pub(crate) peers: PeerClient,
    /// Keeps manifests.
    pub(crate) mirror: Mirror,
    /// By way of whom registries are read, if they are.
    pub(crate) hub: Option<Hub>,
    /// The gateways of other regions.
    pub(crate) regions: Roll,
}

/// The region; clones are of the same.
#[derive(Clone)]
pub(crate) struct Fleet(Arc<Means>);

impl Fleet {
    pub(crate) fn new(means: Means) -> Self {
        Self(Arc::new(means))
    }

    /// The whole region at a glance.
    async fn overview(&self) -> FleetView {
        let sought = Sought { stage: Some(Stage::Fetching), ..Sought::default() };
        let fetching = BlobsRequest { sought, at_most: BlobsRequest::MAX };
        let (nodes, fetching) = tokio::join!(self.0.census.glance(), self.standings(&fetching));
        let RegionsView { hub, regions } = self.regions();
        FleetView {
            gateways: self.gateways(),
            schedulers: overview::schedulers(self.0.census.schedulers(), &nodes.silent),
            hub,
            regions,
            fetching: fetching.found.len(),
            ..FleetView::of(&nodes.found)
        }
    }

    /// The gateways of the region that this one knows of, itself first.
    fn gateways(&self) -> Vec<GatewayView> {
        let sisters = &self.0.sisters;
        let view = |Node { id, address, .. }: &Node, is_this, answers| GatewayView {
            id: id.to_string(),
            address: address.to_string(),
            is_this,
            answers,
        };
        let me = view(&sisters.myself(), true, true);
        let others =
            sisters.all().into_iter().map(|(it, standing)| view(&it, false, standing == Standing::Answers));
        std::iter::once(me).chain(others).collect()
    }

    /// One blob with some of those that hold it or want it, if the region knows it.
    async fn swarm(&self, key: &BlobKey) -> Counted<SwarmView> {
        let request = SwarmRequest { key: key.clone(), at_most: SwarmRequest::MAX };
        let Counted { found, silent, is_known } = self.0.census.swarm(&request).await;
        let view = |it: CloseUp<Node>| {
            let task = self.task_of(it.standing.clone());
            SwarmView::new(it, task)
        };
        Counted { found: found.into_iter().map(view).collect(), silent, is_known }
    }

    /// A page of tasks.
    async fn tasks(&self, query: TasksQuery) -> TasksView {
        let TasksQuery { mut sought, within, per_page } = query;
        let mut left_at = None;
        match within.map(|it| self.narrowed(&it)) {
            None => {}
            Some(Narrowed::Group(group)) => sought.group = Some(group),
            Some(Narrowed::Blobs(blobs)) => {
                (sought.among, left_at) = query::next(blobs, sought.after.as_ref());
                if sought.among.is_empty() {
                    return TasksView::default();
                }
            }
        }
        // One more says whether there is another page.
        let request = BlobsRequest { sought, at_most: per_page + 1 };
        let counted = self.standings(&request).await;
        view::tasks(counted, (per_page, left_at), |it| self.task_of(it))
    }

    /// One task, if the region knows it.
    async fn task(&self, key: &BlobKey) -> Counted<TaskView> {
        let sought = Sought { among: [key.clone()].into(), ..Sought::default() };
        let Counted { found, silent, is_known } = self.standings(&BlobsRequest { sought, at_most: 1 }).await;
        Counted { found: found.into_iter().map(|it| self.task_of(it)).collect(), silent, is_known }
    }

    /// A page of nodes.
    async fn nodes(&self, query: NodesQuery) -> NodesView {
        let NodesQuery { after, zone, task, per_page } = query;
        // A page fits. One more says whether there is another.
        let at_most = per_page as u32 + 1;
        let request = NodesRequest { after, at_most, zone, having: task, counted: true };
        let mut counted = self.0.census.nodes(&request).await;
        if request.having.is_some() {
            // Only the scheduler that has the task has counted, and its part alone.
            counted.found.iter_mut().for_each(|it| it.n_blobs = None);
        }
        view::nodes(counted, per_page)
    }

    /// The other regions.
    fn regions(&self) -> RegionsView {
        let Means { gate, hub, regions, .. } = &*self.0;
        let registries = gate.behind_hub().map(ToString::to_string);
        let hub = hub.as_ref().map(|it| HubView::new(it.region(), it.answering(), registries.collect()));
        RegionsView::new(hub, regions.list())
    }

    /// How blobs stand. Where no scheduler says it, what there is here is better than nothing.
    async fn standings(&self, request: &BlobsRequest) -> Counted<table::Standing> {
        let mut counted = self.0.census.blobs(request).await;
        if !counted.is_known {
            let own = self.0.store.list().into_iter().filter_map(own);
            counted.found = own.filter(|it| request.sought.is_met_by(it)).take(request.at_most).collect();
        }
        counted
    }

    fn task_of(&self, standing: table::Standing) -> TaskView {
        let Means { ledger, seeder, sisters, .. } = &*self.0;
        let key = &standing.key;
        let (account, seed, owner) = (ledger.account(key), seeder.progress(key), sisters.owner(key));
        TaskView::new(standing, owner.id, account, seed)
    }

    /// What a registry's or a repository's blobs are known by.
    fn narrowed(&self, Within { registry, repository }: &Within) -> Narrowed {
        match self.0.gate.group_of(registry).filter(|_| repository.is_none()) {
            Some(group) => Narrowed::Group(group),
            None => Narrowed::Blobs(self.0.ledger.blobs_of(registry, repository.as_ref())),
        }
    }

    /// The registry that is meant by this name.
    fn registry_named(&self, name: &str) -> Option<RegistryName> {
        self.0.gate.registry_named(name)
    }
}

/// What is known of a registry's blobs.
enum Narrowed {
    /// They are all of its trust group, which no other registry is in.
    Group(TrustGroup),
    /// They are these, as far as this gateway has seen.
    Blobs(BTreeSet<BlobKey>),
}

/// A blob as this gateway alone knows it, if it holds anything of it.
fn own(Summary { key, status, .. }: Summary) -> Option<table::Standing> {
    let (n_whole, n_part) = if status.held.is_full() { (1, 0) } else { (0, 1) };
    let geometry = status.geometry;
    (!status.held.is_empty() || status.is_complete()).then_some(table::Standing {
        key,
        geometry,
        n_whole,
        n_part,
        n_wanting: 0,
    })
}
