//! Pulls that last for seconds, so that there is a middle for something to happen in.
//!
//! Links are slow, and the middle is told by the bytes that have come, not by the time that has passed.

use anyhow::Result;

use crate::fleet::{Fleet, FleetSpec};
use crate::image::Image;
use crate::lab::{Lab, LabSpec};
use crate::link::Mbit;
use crate::raw::Exchange;

/// The size of the layer, in bytes, before it is packed.
pub const LAYER: usize = 24 << 20;
/// With so many bytes of the layer at a client, most of it is still to come.
pub const SOME: usize = 3 << 20;
/// The rate of every node's link; a node takes about 4 s for the layer.
pub const SLOW: Mbit = Mbit(50);

/// A fleet whose nodes are slow, and an image of one layer, which the first `n_holders` nodes hold already.
pub async fn slow_fleet(
    name: &str,
    spec: FleetSpec,
    nodes: u16,
    n_holders: usize,
) -> Result<(Lab, Fleet, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(nodes)).await?;
    let fleet = Fleet::start(&mut lab, spec).await?;
    let image = fleet.publish(&[LAYER]).await?;
    for holder in 0..n_holders {
        fleet.read(holder, &image, &image.layers[0], &[]).await?.finish_with(&image.layers[0]).await?;
    }
    for node in lab.nodes() {
        node.shape(SLOW, SLOW).await?;
    }
    Ok((lab, fleet, image))
}

impl Fleet {
    /// Begins the pull of an image's first layer on a node and returns in the middle.
    pub async fn pull_under_way(&self, node: usize, image: &Image) -> Result<Exchange> {
        let mut pull = self.read(node, image, &image.layers[0], &[]).await?;
        pull.read_to(SOME).await?;
        Ok(pull)
    }
}
