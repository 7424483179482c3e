//! Clusters a graph in a raw file and writes the labels: `leiden_file GRAPH LABELS [key=value ...]`.
//!
//! GRAPH, little-endian: n u64, nnz u64, indptr (n + 1) u64, indices (nnz) u32, weights (nnz) f32. LABELS: n u32.
//! Keys: resolution, n_iterations, seed, beta, n_starts, method (leiden, louvain), threads. Talks on stderr.
#![allow(clippy::print_stderr)]

use std::error::Error;
use std::fs;
use std::time::Instant;

use cellmill_graph::Connectivities;
use cellmill_graph::leiden::{Options, leiden};
use cellmill_graph::louvain;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(graph), Some(labels)) = (args.next(), args.next()) else {
        return Err("leiden_file GRAPH LABELS [key=value ...]".into());
    };
    let (mut options, mut threads, mut louvain_asked) = (Options::default(), 0, false);
    for arg in args {
        match arg.split_once('=').ok_or("key=value")? {
            ("resolution", value) => options.resolution = value.parse()?,
            ("n_iterations", value) => options.n_iterations = value.parse()?,
            ("seed", value) => options.seed = value.parse()?,
            ("n_starts", value) => options.n_starts = Some(value.parse()?),
            ("beta", value) => options.beta = Some(value.parse()?),
            ("method", value) => louvain_asked = value == "louvain",
            ("threads", value) => threads = value.parse()?,
            (key, _) => return Err(format!("unknown key {key}").into()),
        }
    }
    let bytes = fs::read(graph)?;
    let mut rest = &bytes[..];
    let mut take = |len: usize| -> Result<&[u8], Box<dyn Error>> {
        let (head, tail) = rest.split_at_checked(len).ok_or("the file is too short")?;
        rest = tail;
        Ok(head)
    };
    let u64s = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&b| u64::from_le_bytes(b)).collect::<Vec<_>>();
    let sizes = u64s(take(16)?);
    let (n, nnz) = (usize::try_from(sizes[0])?, usize::try_from(sizes[1])?);
    let graph = Connectivities {
        indptr: u64s(take(8 * (n + 1))?),
        indices: take(4 * nnz)?.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect(),
        weights: take(4 * nnz)?.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
    };
    drop(bytes);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let start = Instant::now();
    let found = pool.install(|| if louvain_asked { louvain(&graph, &options, &()) } else { leiden(&graph, &options, &()) })?;
    eprintln!(
        "{:.3} s, {} clusters, modularity {:.6}, history {:?}",
        start.elapsed().as_secs_f64(),
        found.n_clusters,
        found.modularity,
        found.history
    );
    fs::write(labels, found.labels.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>())?;
    Ok(())
}
