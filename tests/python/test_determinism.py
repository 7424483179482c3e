"""Same input, same bits: for any number of threads, any ceiling of memory, every time."""

import pytest

from program import files

FLAGS = ("--min-genes", 200, "--n-top-genes", 500, "--n-comps", 30, "--resolution", "0.5,1", "--with-x", "normalized", "--qc-var", "mt=prefix:MT-")


def assert_same_files(one, other):
    a, b = files(one), files(other)
    assert list(a) == list(b)
    assert not [name for name in a if a[name] != b[name]]


@pytest.fixture(scope="session")
def first(run, synthetic_path):
    return run(synthetic_path, *FLAGS, threads=1)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads(threads, first, run, synthetic_path):
    assert_same_files(first, run(synthetic_path, *FLAGS, threads=threads))


def test_twice(first, run, synthetic_path):
    assert_same_files(first, run(synthetic_path, *FLAGS, "--quiet", threads=1))


@pytest.mark.parametrize("memory", ["256MiB", "8GiB"])
def test_memory(memory, first, run, synthetic_path):
    assert_same_files(first, run(synthetic_path, *FLAGS, "--memory", memory, threads=2))


def test_h5ad(run, synthetic_path):
    assert_same_files(run(synthetic_path, *FLAGS, suffix=".h5ad", threads=1), run(synthetic_path, *FLAGS, suffix=".h5ad", threads=3))


@pytest.mark.parametrize("flags", [("--flavor", "seurat", "--batch-key", "batch"), ("--flavor", "seurat_v3", "--batch-key", "batch"), ("--target-sum", "median"), ("--zero-center", "--max-value", 3), ("--metric", "cosine", "--knn", "fast")], ids=str)
def test_other_recipes(flags, run, synthetic_path):
    basic = ("--through", "neighbors", "--min-genes", 200, "--n-top-genes", 500, "--n-comps", 30)
    assert_same_files(run(synthetic_path, *basic, *flags, threads=1), run(synthetic_path, *basic, *flags, threads=5))


def test_another_seed_is_another_layout(first, run, synthetic_path):
    other = run(synthetic_path, *FLAGS, "--seed", 7, threads=2)
    a, b = files(first), files(other)
    assert [name for name in a if "X_umap" in name and a[name] != b.get(name)]
    assert not [name for name in a if "X_pca" in name and a[name] != b.get(name)]
