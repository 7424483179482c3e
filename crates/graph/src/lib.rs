//! From an embedding on: neighbours, the fuzzy graph, UMAP and Leiden.
//!
//! Everything runs in the rayon pool that the caller has installed, and gives the same bits for any number of its threads:
//! each row of a result is owned by one task, ties are ordered by id, sums have a fixed order, and random numbers are a
//! function of (seed, what, where), never of time.

mod contract;
pub mod cuda;
pub mod fuzzy;
pub mod knn;
pub mod leiden;
mod louvain;
mod paga;
mod types;
pub mod umap;

pub use knn::{Knn, knn, knn_on, knn_streamed};
pub use louvain::louvain;
pub use paga::{Model as PagaModel, Paga, paga, paga_sparse};
pub use types::{Connectivities, Distances, Embedding};
