//! The graph, its layout and its clusters: each an order of its own, for one worker that has room for it.

use std::ops::Range;

use cellmill_graph::Connectivities;
use cellmill_graph::knn::Knn;
use cellmill_matrix::{Error, ErrorKind, Result, Watch};

use super::{Cluster, Order, What, record_name};
use crate::budget::say_bytes;
use crate::graph::{Clusters, JOINED, Layout, SEARCHED, found_bytes, graph_bytes};

/// The only part of a pass that is not cut.
const WHOLE: Range<usize> = 0..1;

impl Cluster<'_> {
    /// Whether a worker has room for so many bytes. If none has, and this process has not either (`alone`), the run ends.
    pub(crate) fn has_room(&self, needs: u64, alone: bool) -> Result<bool> {
        let rooms = self.dispatcher.rooms()?;
        match rooms.iter().any(|(_, room)| *room >= needs) {
            true => Ok(true),
            false if alone => Ok(false),
            false => Err(no_room(needs, &rooms)),
        }
    }

    /// Leaves the graph for the workers.
    pub(crate) fn keep_graph(&self, graph: &Connectivities) -> Result<()> {
        self.note_arrays(JOINED, &graph_bytes(graph))
    }

    /// The weights between neighbours, in the order of the cells. Workers have them by position from then on.
    pub(crate) fn weights(&self, found: &Knn, needs: u64, watch: &dyn Watch) -> Result<Connectivities> {
        self.note_arrays(SEARCHED, &found_bytes(found))?;
        let (pass, orders) = self.orders(What::Weights, "connectivities", &(), &[WHOLE], 1, needs)?;
        self.all(&orders, watch)?;
        // It is large: not all of its bytes beside it.
        let name = record_name(&pass, &WHOLE);
        let (indptr, indices, weights) = self.seen(&name, || self.journal.load(&name))?;
        Ok(Connectivities { indptr, indices, weights })
    }

    /// UMAP's places.
    pub(crate) fn layout(&self, layout: &Layout<'_>, needs: u64, watch: &dyn Watch) -> Result<Vec<f32>> {
        let (pass, orders) = self.layout_orders(layout, needs)?;
        self.all(&orders, watch)?;
        self.record(&record_name(&pass, &WHOLE))
    }

    /// Leiden's clusters, of the cells `within` if it is given.
    pub(crate) fn clusters(&self, within: &Option<Vec<bool>>, needs: u64, watch: &dyn Watch) -> Result<Vec<Clusters>> {
        let (pass, orders) = self.clusters_orders(within, needs)?;
        self.all(&orders, watch)?;
        self.record(&record_name(&pass, &WHOLE))
    }

    /// Has both done at the same time; [`Cluster::layout`] and [`Cluster::clusters`] find them then.
    pub(crate) fn both(&self, layout: &Layout<'_>, within: &Option<Vec<bool>>, needs: u64, watch: &dyn Watch) -> Result<()> {
        let (_, mut orders) = self.layout_orders(layout, needs)?;
        orders.extend(self.clusters_orders(within, needs)?.1);
        self.all(&orders, watch)
    }

    fn layout_orders(&self, layout: &Layout<'_>, needs: u64) -> Result<(String, Vec<Order>)> {
        self.orders(What::Layout, "umap", layout, &[WHOLE], 1, needs)
    }

    fn clusters_orders(&self, within: &Option<Vec<bool>>, needs: u64) -> Result<(String, Vec<Order>)> {
        self.orders(What::Clusters, "leiden", within, &[WHOLE], 1, needs)
    }

    fn all(&self, orders: &[Order], watch: &dyn Watch) -> Result<()> {
        self.hand_out(orders, |done| done as u64, orders.len() as u64, watch, &mut |_| Ok(()))
    }
}

/// What is said where no worker has room for the layout and the clusters, nor this process.
pub(crate) fn no_room(needs: u64, rooms: &[(String, u64)]) -> Error {
    let have: Vec<String> = rooms.iter().map(|(worker, room)| format!("{worker} {}", say_bytes(*room))).collect();
    let what = format!("UMAP and Leiden on one worker, or in this process with a higher ceiling (workers may take: {}),", have.join(", "));
    let ceiling = rooms.iter().map(|(_, room)| *room).max().unwrap_or(0);
    ErrorKind::Budget { what, needs, ceiling }.into()
}
