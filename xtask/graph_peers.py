"""The graph stage beside its peers: neighbours, fuzzy set, UMAP and Leiden of one embedding, by this project and by what scanpy calls.

    python xtask/graph_peers.py EMBEDDING.npy --stages target/release/examples/stages [--threads N] [--k 15] [--epochs 200]

EMBEDDING.npy is an ``(n, d)`` float32 array, such as ``X_pca[:, :50]``. Each stage of a peer is fed with what the peer's stage before it
found: pynndescent's neighbours, umap-learn's fuzzy set and layout, igraph's Leiden. Compilation is not counted: every peer runs once
on 3,000 rows first. Prints wall-clock seconds and quality of each side, and the peak of resident memory of the peers' process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import time


def ours(stages: str, embedding: str, threads: int, k: int, epochs: int) -> None:
    command = [stages, f"input={embedding}", f"k={k}", f"threads={threads}", f"epochs={epochs}"]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        print("cellmill", line, flush=True)


def peers(embedding: str, threads: int, k: int, epochs: int) -> None:
    import igraph
    import numpy as np
    import pynndescent
    import scipy.sparse as sp
    import umap
    import umap.umap_ as reference

    whole = np.ascontiguousarray(np.load(embedding), dtype=np.float32)
    a, b = reference.find_ab_params(1.0, 0.5)

    def chain(x: np.ndarray, say: bool) -> None:
        start = time.perf_counter()

        def done(stage: str, **quality: float) -> None:
            nonlocal start
            if say:
                print("peers", json.dumps({"stage": stage, "wall_s": round(time.perf_counter() - start, 3), **quality}), flush=True)
            start = time.perf_counter()

        index = pynndescent.NNDescent(x, n_neighbors=k, metric="euclidean", random_state=0, n_jobs=threads)
        ids, distances = index.neighbor_graph
        done("pynndescent")
        if say:
            sample = np.random.default_rng(0).choice(len(x), 1000, replace=False)
            squares = (x * x).sum(1)
            hits = 0
            for at in np.array_split(sample, 20):
                all_of = squares[at, None] - 2.0 * x[at] @ x.T + squares
                hits += sum(len(np.intersect1d(np.argpartition(row, k)[:k], ids[i])) for row, i in zip(all_of, at, strict=True))
            print("peers", json.dumps({"quality": "knn", "recall": hits / (1000 * k)}), flush=True)
            start = time.perf_counter()
        dense = sp.coo_matrix(([], ([], [])), shape=(len(x), 1))
        graph, _, _ = reference.fuzzy_simplicial_set(dense, k, None, None, knn_indices=ids, knn_dists=distances)
        done("umap-learn, fuzzy set")
        for name, seed in (("umap-learn, layout, seeded", np.random.RandomState(0)), ("umap-learn, layout, parallel", None)):
            reference.simplicial_set_embedding(
                x, graph, 2, 1.0, a, b, 1.0, 5, epochs, "spectral", seed or np.random.RandomState(0), "euclidean", {}, False, {}, False,
                parallel=seed is None,
            )
            done(name)
        upper = sp.triu(graph).tocoo()
        done("joining edges")
        network = igraph.Graph(n=len(x), edges=np.column_stack([upper.row, upper.col]))
        found = network.community_leiden("modularity", weights=upper.data, resolution=1.0, n_iterations=2)
        done("igraph, leiden", modularity=round(network.modularity(found.membership, weights=upper.data), 6), clusters=len(found))

    chain(whole[:3000], False)
    chain(whole, True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print("peers", json.dumps({"peak_rss_mib": peak, "umap": umap.__version__, "pynndescent": pynndescent.__version__, "igraph": igraph.__version__}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embedding")
    parser.add_argument("--stages", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--k", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=200)
    asked = parser.parse_args()
    os.environ["NUMBA_NUM_THREADS"] = str(asked.threads)
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    ours(asked.stages, asked.embedding, asked.threads, asked.k, asked.epochs)
    peers(asked.embedding, asked.threads, asked.k, asked.epochs)
    ours(asked.stages, asked.embedding, asked.threads, asked.k, asked.epochs)


if __name__ == "__main__":
    main()
