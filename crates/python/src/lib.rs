//! Python's side of cellmill: thin glue between numpy arrays and the engine. One file a group of verbs; the package in `python/cellmill`
//! names slots and keeps scanpy's signatures, the numbers come from the engine and the graph crates.

mod cluster;
mod convert;
mod dataset;
mod dense;
mod device;
mod device_array;
mod error;
mod groups;
mod hvg;
mod job;
mod many;
mod matrix;
mod memory;
mod moments;
mod neighbors;
mod origin;
mod paga;
mod pca;
mod pickle;
mod pool;
mod qc;
mod rows;
mod umap;
mod workers;
mod write;

use pyo3::prelude::*;

/// The program's allocator: threads don't wait for each other, and free memory goes back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` in mimalloc's `mi_option_e`.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// The native half of cellmill.
#[pymodule]
fn _cellmill(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // Free memory goes back at once, as in the program.
    // SAFETY: the option is one of the allocator's, and modules are loaded under the interpreter's lock, before any of our threads runs.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0) };
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_class::<matrix::Matrix>()?;
    m.add_class::<dataset::Store>()?;
    m.add_class::<device_array::DeviceArray>()?;
    m.add_function(wrap_pyfunction!(pool::configure, m)?)?;
    m.add_function(wrap_pyfunction!(pool::available_memory, m)?)?;
    m.add_function(wrap_pyfunction!(pool::parse_memory, m)?)?;
    m.add_function(wrap_pyfunction!(device::choose_device, m)?)?;
    m.add_function(wrap_pyfunction!(qc::quality, m)?)?;
    m.add_function(wrap_pyfunction!(qc::highly_expressed, m)?)?;
    m.add_function(wrap_pyfunction!(moments::moments, m)?)?;
    m.add_function(wrap_pyfunction!(pca::pca, m)?)?;
    m.add_function(wrap_pyfunction!(device_array::on_device, m)?)?;
    m.add_function(wrap_pyfunction!(hvg::highly_variable, m)?)?;
    m.add_function(wrap_pyfunction!(hvg::highly_variable_v3, m)?)?;
    m.add_function(wrap_pyfunction!(hvg::highly_variable_pearson, m)?)?;
    m.add_function(wrap_pyfunction!(neighbors::neighbors, m)?)?;
    m.add_function(wrap_pyfunction!(neighbors::connectivities, m)?)?;
    m.add_function(wrap_pyfunction!(umap::umap, m)?)?;
    m.add_function(wrap_pyfunction!(umap::find_ab, m)?)?;
    m.add_function(wrap_pyfunction!(cluster::cluster, m)?)?;
    m.add_function(wrap_pyfunction!(paga::paga, m)?)?;
    m.add_function(wrap_pyfunction!(groups::rank_genes_groups, m)?)?;
    m.add_function(wrap_pyfunction!(groups::aggregate, m)?)?;
    m.add_function(wrap_pyfunction!(groups::control_genes, m)?)?;
    m.add_function(wrap_pyfunction!(groups::score_genes, m)?)?;
    m.add_function(wrap_pyfunction!(dense::pearson_fit, m)?)?;
    m.add_function(wrap_pyfunction!(dense::pearson_rows, m)?)?;
    m.add_function(wrap_pyfunction!(dense::regress_fit, m)?)?;
    m.add_function(wrap_pyfunction!(dense::regress_rows, m)?)?;
    m.add_function(wrap_pyfunction!(job::run, m)?)?;
    m.add_function(wrap_pyfunction!(job::default_recipe, m)?)?;
    m.add_function(wrap_pyfunction!(write::write_store, m)?)?;
    m.add_function(wrap_pyfunction!(workers::work, m)?)?;
    m.add_function(wrap_pyfunction!(workers::room, m)?)?;
    m.add_function(wrap_pyfunction!(workers::no_gpu, m)?)?;
    m.add_function(wrap_pyfunction!(workers::leave, m)?)?;
    Ok(())
}
