"""The same steps by scanpy, numpy, scikit-learn, umap-learn and igraph, and the measures of the acceptance table."""

import random

import igraph
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

_cut = pd.cut


def _merging_cut(*args, **options):
    """Equal percentile edges are merged where scanpy raises."""
    return _cut(*args, **{"duplicates": "drop", **options})


def counts(a):
    """A copy with tidy float32 CSR counts and unique gene names."""
    a = a.copy()
    x = sp.csr_matrix(a.X).astype(np.float32)
    x.sum_duplicates()
    x.eliminate_zeros()
    a.X = x
    a.var_names = [f"{i}" for i in range(a.n_vars)]
    return a


def hvg(a, **options):
    """highly_variable_genes, in the order of var."""
    pd.cut = _merging_cut
    try:
        frame = sc.pp.highly_variable_genes(a, inplace=False, **options)
    finally:
        pd.cut = _cut
    return frame.reindex(a.var_names) if set(frame.index) == set(a.var_names) else frame


def normalized(a, target_sum=1e4, base=None):
    """Counts after normalize_total and log1p."""
    a = counts(a)
    sc.pp.normalize_total(a, target_sum=target_sum)
    sc.pp.log1p(a, base=base)
    return a


def far(ours, theirs, floor=1e-12):
    """Largest relative difference; both must be NaN in the same places."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    assert np.array_equal(np.isnan(ours), np.isnan(theirs)), f"NaN: ours {np.isnan(ours).sum()}, theirs {np.isnan(theirs).sum()}"
    same = (ours == theirs) | np.isnan(ours)
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0, np.abs(ours - theirs) / np.maximum(np.abs(theirs), floor))
    return float(apart.max(initial=0))


def pca(x):
    """Exact principal components by SVD: (scores, variance, ratio, loadings in rows); the largest loading is positive."""
    x = np.asarray(x, np.float64)
    total = x.var(0, ddof=1).sum()
    u, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    sign = np.sign(v[np.arange(len(v)), np.abs(v).argmax(1)])
    variance = s**2 / (len(x) - 1)
    return u * s * sign, variance, variance / total, v * sign[:, None]


def isolated(variance, n, gap=1e-2):
    """Components whose variance differs by more than `gap` from both neighbours."""
    step = variance[:n] / variance[1 : n + 1] - 1
    return [i for i in range(n) if step[i] > gap and (i == 0 or step[i - 1] > gap)]


def nearest(z, k=15, metric="euclidean"):
    """(distances, indices) of the k-1 nearest others; a cell is never its own neighbour."""
    d, i = NearestNeighbors(n_neighbors=min(k + 5, len(z)), metric=metric, algorithm="brute").fit(z).kneighbors(z)
    out_d, out_i = np.empty((len(z), k - 1)), np.empty((len(z), k - 1), int)
    for row in range(len(z)):
        others = i[row] != row
        out_d[row], out_i[row] = d[row][others][: k - 1], i[row][others][: k - 1]
    return out_d, out_i


def rows_of(distances, k):
    """(distances, indices) of a distances matrix with k-1 entries a row, in stored order."""
    m = sp.csr_matrix(distances)
    assert np.all(np.diff(m.indptr) == k - 1), "k-1 entries a row"
    return m.data.reshape(-1, k - 1), m.indices.reshape(-1, k - 1)


def overlap(a, b):
    """Mean share of neighbours that two lists have in common."""
    return float(np.mean([len(set(x) & set(y)) / len(y) for x, y in zip(a, b)]))


def recall(distances, indices, z, k, metric="euclidean"):
    """Share of found neighbours that are true ones: in the true list, or as near as its last (1 + 1e-5)."""
    true_d, true_i = nearest(z, k, metric)
    hits = [np.mean([j in t or d <= last * (1 + 1e-5) + 1e-7 for d, j in zip(dr, jr)]) for dr, jr, t, last in zip(distances, indices, map(set, true_i), true_d[:, -1])]
    return float(np.mean(hits)), true_d


def fuzzy(z, distances, indices, k, metric="euclidean"):
    """umap-learn's graph of the same neighbours."""
    from umap.umap_ import fuzzy_simplicial_set

    n = len(z)
    kd = np.zeros((n, k), np.float32)
    ki = np.tile(np.arange(n)[:, None], (1, k))
    kd[:, 1:], ki[:, 1:] = distances, indices
    return fuzzy_simplicial_set(z, k, np.random.RandomState(0), metric, knn_indices=ki, knn_dists=kd)[0].tocsr()


def graph(connectivities):
    """(igraph graph, weights) of a symmetric matrix."""
    upper = sp.triu(sp.csr_matrix(connectivities), 1).tocoo()
    g = igraph.Graph(n=connectivities.shape[0], edges=np.c_[upper.row, upper.col].tolist())
    return g, upper.data.astype(float).tolist()


def modularity(g, weights, labels, resolution):
    return g.modularity(np.asarray(labels).tolist(), weights=weights, resolution=resolution)


def leiden(g, weights, resolution, seeds=5, iterations=2):
    """igraph's partitions from several seeds."""
    found = []
    for seed in range(seeds):
        random.seed(seed)
        igraph.set_random_number_generator(random)
        found.append(np.array(g.community_leiden("modularity", weights=weights, resolution=resolution, n_iterations=iterations).membership))
    return found
