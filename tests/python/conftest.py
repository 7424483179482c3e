"""Inputs and runs that several tests share; each is made once a session."""

import os
import warnings

import anndata as ad
import matplotlib
import numpy as np
import pytest

import inputs
import program

matplotlib.use("Agg")
warnings.simplefilter("ignore")
ad.settings.allow_write_nullable_strings = True


def pytest_sessionstart(session):
    found = program.binary()
    if found is None or not os.access(found, os.X_OK):
        pytest.exit("no cellmill program: build it (cargo build --release) or set CELLMILL", returncode=1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder for shared inputs."""
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Runs of `cellmill run`, remembered."""
    return program.Runs(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="session")
def pbmc():
    """1,200 blood cells, all genes."""
    return inputs.pbmc(1200)


@pytest.fixture(scope="session")
def pbmc_path(pbmc, folder):
    return inputs.write(pbmc, folder / "pbmc.zarr")


@pytest.fixture(scope="session")
def synthetic():
    """2,000 cells x 3,000 genes in 3 batches."""
    return inputs.synthetic()


@pytest.fixture(scope="session")
def synthetic_path(synthetic, folder):
    return inputs.write(synthetic, folder / "synthetic.zarr")


@pytest.fixture(scope="session")
def small():
    """400 cells x 600 genes, for what needs no size."""
    return inputs.synthetic(400, 600, seed=3)


@pytest.fixture(scope="session")
def small_path(small, folder):
    return inputs.write(small, folder / "small.zarr")


@pytest.fixture(scope="session")
def mixed():
    """700 blood cells x 2,500 genes with columns of every kind, two empty cells and repeated gene names."""
    a = inputs.pbmc(700, seed=5)
    seen = np.flatnonzero(np.asarray((a.X > 0).sum(0)).ravel() >= 5)
    mt = np.flatnonzero(a.var_names.str.startswith("MT-"))
    rest = np.random.default_rng(5).permutation(np.setdiff1d(seen, mt))[: 2500 - len(mt)]
    a = a[:, np.sort(np.concatenate([mt, rest]))].copy()
    x = a.X.tolil()
    x[[3, 350]] = 0
    a.X = x.tocsr()
    names = a.var_names.to_numpy(str).copy()
    names[20], names[21] = names[10], names[10]
    a.var_names = names
    a.uns, a.obsm = {}, {}
    return inputs.rich(a)


@pytest.fixture(scope="session")
def mixed_path(mixed, folder):
    return inputs.write(mixed, folder / "mixed.zarr")
