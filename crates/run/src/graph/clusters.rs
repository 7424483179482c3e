//! Clusters and PAGA's graph of them, under AnnData's names.

use cellmill_cuda::Processor;
use cellmill_engine::journal::Journal;
use cellmill_graph::leiden::{self, Clustering};
use cellmill_graph::{Connectivities, Embedding, louvain, paga, umap};
use cellmill_matrix::{Array, Column, Element, Error, Place, Result, Sparse, Table, Values, Watch, keys};
use serde::{Deserialize, Serialize};

use super::{CLUSTERED, Made};
use crate::analysis::{Analysis, Input, kept};
use crate::observe::{Observer, StageWatch};
use crate::recipe::{Recipe, Resolutions};

/// A clustering, as a journal keeps it: labels by position.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Clusters {
    pub labels: Vec<u32>,
    n_clusters: usize,
    modularity: f64,
}

impl From<Clustering> for Clusters {
    fn from(c: Clustering) -> Self {
        Clusters { labels: c.labels, n_clusters: c.n_clusters, modularity: c.modularity }
    }
}

/// Leiden's clusters of a graph at each resolution of a recipe, of the cells `within` alone if it is given.
pub(crate) fn partition(
    graph: &Connectivities,
    within: Option<&[bool]>,
    recipe: &Recipe,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Vec<Clusters>> {
    let l = &recipe.leiden;
    let options = leiden::Options { n_iterations: l.n_iterations, seed: recipe.seed, ..leiden::Options::default() };
    let resolutions = l.resolution.list();
    let all = match within {
        None => leiden::leiden_on(graph, &resolutions, &options, processor, watch)?,
        Some(keep) => leiden::leiden_on(&leiden::within(graph, keep)?, &resolutions, &options, processor, watch)?,
    };
    Ok(all.into_iter().map(Clusters::from).collect())
}

impl Analysis {
    /// Leiden's clusters at each resolution; of the restricted cells alone, if there is a restriction.
    pub(super) fn clusters(&self, recipe: &Recipe, made: &Made, input: &Input<'_>, watch: StageWatch<'_>) -> Result<Vec<Clusters>> {
        let within = self.within(recipe, made)?;
        let all =
            kept(input.journal, CLUSTERED, || partition(&made.graph, within.as_deref(), recipe, &input.processor.get()?.last(), &watch))?;
        watch.finish(made.found.order.len() as u64, made.graph.indices.len() as u64, 0);
        Ok(all)
    }

    /// Which cells are clustered, by position; all if there is no restriction.
    pub(super) fn within(&self, recipe: &Recipe, made: &Made) -> Result<Option<Vec<bool>>> {
        let within = |(column, categories): &(String, Vec<String>)| Ok(made.by_position(&restricted(&self.obs, column, categories)?, 1));
        recipe.leiden.restrict_to.as_ref().map(within).transpose()
    }

    /// Puts Leiden's clusters into obs, and PAGA's graph of them into uns.
    pub(super) fn keep_clusters(&mut self, recipe: &Recipe, made: &Made, all: Vec<Clusters>) -> Result<()> {
        let l = &recipe.leiden;
        self.outcome.n_clusters = all.first().map_or(0, |c| c.n_clusters);
        let base = match (&l.key_added, &l.restrict_to) {
            (Some(key), _) => key.clone(),
            (None, Some(_)) => format!("{}_R", keys::LEIDEN),
            (None, None) => keys::LEIDEN.to_string(),
        };
        for (at, (clusters, resolution)) in all.into_iter().zip(l.resolution.list()).enumerate() {
            let key = at_resolution(&base, &l.resolution, resolution);
            let column = match &l.restrict_to {
                None => numbered(made, &clusters),
                Some((column, categories)) => within_others(&self.obs, column, categories, made, &clusters)?,
            };
            if l.paga && at == 0 {
                self.paga(made, &key, &column)?;
            }
            self.obs.set(&key, column);
            self.uns.push((key, said(resolution, l.n_iterations, recipe.seed, clusters.modularity)));
        }
        Ok(())
    }

    /// Louvain's clusters at each resolution.
    pub(super) fn louvain(&mut self, recipe: &Recipe, made: &Made, journal: Option<&Journal>, observer: &Observer<'_>) -> Result<()> {
        let l = &recipe.leiden;
        let watch = observer.stage("louvain", "iterations");
        let all: Vec<Clusters> = kept(journal, "louvain", || {
            let one = |resolution| {
                let options = leiden::Options { resolution, n_iterations: l.n_iterations, seed: recipe.seed, ..leiden::Options::default() };
                louvain(&made.graph, &options, &watch).map(Clusters::from)
            };
            l.resolution.list().into_iter().map(one).collect()
        })?;
        watch.finish(made.found.order.len() as u64, made.graph.indices.len() as u64, 0);
        for (clusters, resolution) in all.into_iter().zip(l.resolution.list()) {
            let key = at_resolution(keys::LOUVAIN, &l.resolution, resolution);
            self.obs.set(&key, numbered(made, &clusters));
            self.uns.push((key, said(resolution, l.n_iterations, recipe.seed, clusters.modularity)));
        }
        Ok(())
    }

    /// scanpy's `uns['paga']` for the groups of a column.
    fn paga(&mut self, made: &Made, key: &str, column: &Column) -> Result<()> {
        let Column::Categorical { codes, categories, .. } = column else { return Err(Error::bug("clusters are not categories")) };
        let labels: Vec<u32> = codes.iter().map(|&code| code as u32).collect();
        let found = paga(&made.found.distances, &made.by_position(&labels, 1), categories.len())?;
        let sizes = Values::I64(found.sizes.iter().map(|&s| s as i64).collect());
        self.uns.push((
            keys::PAGA.into(),
            Element::Dict(vec![
                ("connectivities".into(), Element::Sparse(found.connectivities)),
                ("connectivities_tree".into(), Element::Sparse(found.connectivities_tree)),
                ("groups".into(), Element::string(key)),
            ]),
        ));
        self.uns.push((format!("{key}_sizes"), Element::Array(Array::vector(sizes))));
        Ok(())
    }
}

/// Places of the clusters for a start from PAGA, a layout of PAGA's own graph, and to which each is tied most strongly.
pub(super) fn of_groups(made: &Made, clusters: &Clusters, d: usize, seed: u64) -> Result<(Vec<f32>, Vec<u32>)> {
    let found = paga(&made.found.distances, &clusters.labels, clusters.n_clusters)?;
    let Sparse { indptr, indices, values, .. } = found.connectivities;
    let weights: Vec<f32> = (0..values.len()).map(|i| values.number(i).unwrap_or(0.0) as f32).collect();
    let graph = Connectivities { indptr, indices, weights };
    // Means of the clusters' cells tell where parts of that graph lie.
    let wide = made.wide;
    let mut means = vec![0f32; clusters.n_clusters * wide];
    for (row, &label) in made.head.chunks_exact(wide).zip(&clusters.labels) {
        let size = found.sizes[label as usize] as f32;
        means[label as usize * wide..][..wide].iter_mut().zip(row).for_each(|(mean, x)| *mean += x / size);
    }
    let options = umap::Options { n_components: d, seed, coordinates: Some(Embedding::new(&means, wide)?), ..umap::Options::default() };
    let positions = umap::umap(&graph, &options, &())?;
    let nearest = (0..clusters.n_clusters)
        .map(|group| {
            let (others, weights) = graph.row(group);
            others.iter().zip(weights).fold((group as u32, 0.0), |best, (&o, &w)| if w > best.1 { (o, w) } else { best }).0
        })
        .collect();
    Ok((positions, nearest))
}

/// `base`, or `base_{resolution}` where there are several.
fn at_resolution(base: &str, all: &Resolutions, resolution: f64) -> String {
    match all {
        Resolutions::One(_) => base.to_string(),
        Resolutions::Many(_) => format!("{base}_{}", Values::F64(vec![resolution]).text(0)),
    }
}

/// What uns says of a clustering.
fn said(resolution: f64, n_iterations: i32, seed: u64, modularity: f64) -> Element {
    let params = vec![
        ("resolution".to_string(), Element::float(resolution)),
        ("random_state".into(), Element::int(seed as i64)),
        ("n_iterations".into(), Element::int(i64::from(n_iterations))),
    ];
    Element::Dict(vec![("params".into(), Element::Dict(params)), ("modularity".into(), Element::float(modularity))])
}

/// Clusters as categories '0', '1', … by size.
fn numbered(made: &Made, clusters: &Clusters) -> Column {
    let codes = by_size(&made.by_cell(&clusters.labels, 1), clusters.n_clusters);
    Column::Categorical { codes, categories: Values::Str((0..clusters.n_clusters).map(|c| c.to_string()).collect()), ordered: false }
}

/// Which cells have one of these categories.
pub(super) fn restricted(obs: &Table, column: &str, categories: &[String]) -> Result<Vec<bool>> {
    let values = obs.column(column).ok_or_else(|| Error::missing(Place::element("", "obs"), column, obs.names()))?;
    let keep: Vec<bool> = (0..values.len()).map(|i| values.text(i).is_some_and(|text| categories.contains(&text))).collect();
    for category in categories {
        if !(0..values.len()).any(|i| values.text(i).as_deref() == Some(category)) {
            return Err(Error::option("leiden.restrict_to", format!("'{category}'"), format!("no kept cell has it in obs['{column}']")));
        }
    }
    Ok(keep)
}

/// scanpy's `rename_groups`: restricted cells are called after the categories and their cluster, as `a-b,0`; the others stay what they were.
fn within_others(obs: &Table, column: &str, categories: &[String], made: &Made, clusters: &Clusters) -> Result<Column> {
    let keep = restricted(obs, column, categories)?;
    // Labels are of the kept positions, in their order.
    let mut sub = vec![u32::MAX; keep.len()];
    let inside = made.found.order.iter().filter(|&&cell| keep[cell as usize]);
    inside.zip(&clusters.labels).for_each(|(&cell, &label)| sub[cell as usize] = label);
    let inner: Vec<u32> = sub.iter().copied().filter(|&label| label != u32::MAX).collect();
    let mut numbers = by_size(&inner, clusters.n_clusters).into_iter();
    let values = obs.column(column).ok_or_else(|| Error::missing(Place::element("", "obs"), column, obs.names()))?;
    let prefix = categories.join("-");
    let names: Vec<Option<String>> = keep
        .iter()
        .enumerate()
        .map(|(cell, &keep)| if keep { numbers.next().map(|number| format!("{prefix},{number}")) } else { values.text(cell) })
        .collect();
    let mut known: Vec<&String> = names.iter().flatten().collect();
    known.sort_by_cached_key(|name| natural(name));
    known.dedup();
    let code: std::collections::HashMap<&String, i32> = known.iter().copied().zip(0..).collect();
    let codes = names.iter().map(|name| name.as_ref().map_or(-1, |name| code[name])).collect();
    Ok(Column::Categorical { codes, categories: Values::Str(known.into_iter().cloned().collect()), ordered: false })
}

/// A key by which names sort as people read them: runs of digits as numbers.
fn natural(name: &str) -> Vec<(u8, u64, String)> {
    let mut parts: Vec<(u8, u64, String)> = Vec::new();
    for c in name.chars() {
        match (c.to_digit(10), parts.last_mut()) {
            (Some(digit), Some((0, number, _))) => *number = number.saturating_mul(10).saturating_add(u64::from(digit)),
            (Some(digit), _) => parts.push((0, u64::from(digit), String::new())),
            (None, Some((1, _, text))) => text.push(c),
            (None, _) => parts.push((1, 0, c.to_string())),
        }
    }
    parts
}

/// Labels renumbered by size, descending, ties by the smallest member.
fn by_size(labels: &[u32], n_clusters: usize) -> Vec<i32> {
    let mut size = vec![(0usize, usize::MAX); n_clusters];
    for (cell, &label) in labels.iter().enumerate() {
        let entry = &mut size[label as usize];
        entry.0 += 1;
        entry.1 = entry.1.min(cell);
    }
    let mut order: Vec<usize> = (0..n_clusters).collect();
    order.sort_by_key(|&c| (std::cmp::Reverse(size[c].0), size[c].1));
    let mut number = vec![0i32; n_clusters];
    order.iter().zip(0..).for_each(|(&c, i)| number[c] = i);
    labels.iter().map(|&label| number[label as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_read_them() {
        let mut names = ["10", "9", "B,10", "B,2", "A", "1"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["1", "9", "10", "A", "B,2", "B,10"]);
    }
}
