"""Arrays in the memory of a GPU: those of CuPy that verbs are given, and those that the engine leaves there.

The second half needs a GPU and CuPy. The first has a stand-in for CuPy, arrays that only ``get()`` brings home."""

from __future__ import annotations

import sys
import types

import anndata as ad
import numpy as np
import pytest
from kinds import dense

import cellmill as cm
from cellmill import _cellmill

has_gpu = _cellmill.no_gpu() is None


class Away:
    """What is not to be read where it is."""

    ndim = 2

    def __init__(self, held) -> None:
        self._held = held.get() if isinstance(held, Away) else held

    shape = property(lambda self: self._held.shape)
    dtype = property(lambda self: self._held.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index):
        return type(self)(self._held[index])

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def copy(self):
        return type(self)(self._held.copy())

    def get(self):
        return self._held.copy()


class Array(Away): ...


class Csr(Away): ...


class View(Array):
    """As anndata has views of such arrays."""


Array.__module__, Csr.__module__ = "cupy", "cupyx.scipy.sparse._csr"


class Holding(ad.AnnData):
    """An AnnData that holds what anndata does not know: it knows CuPy itself, and not what stands for it here."""

    X = property(lambda self: self.__dict__.get("_held"), lambda self, x: self.__dict__.__setitem__("_held", x))
    obsm = property(lambda self: self.__dict__.setdefault("_held_obsm", {}), lambda self, _: None)
    obsp = property(lambda self: self.__dict__.setdefault("_held_obsp", {}), lambda self, _: None)


@pytest.fixture
def cupy(monkeypatch):
    """A module that makes such arrays."""
    made = types.ModuleType("cupy")
    made.asarray = Array
    sparse = types.ModuleType("cupyx.scipy.sparse")
    sparse.csr_matrix = Csr
    for name, module in {"cupy": made, "cupyx": types.ModuleType("cupyx"), "cupyx.scipy": types.ModuleType("cupyx.scipy"), "cupyx.scipy.sparse": sparse}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_verbs_take_arrays_of_cupy_and_leave_values_there(counts, cupy):
    expected, found = counts.copy(), ad.AnnData(obs=counts.obs, var=counts.var)
    found.__class__ = Holding
    found.X = Csr(counts.X)
    for adata in (expected, found):
        cm.pp.normalize_total(adata, target_sum=1e4)
        cm.pp.log1p(adata)
        cm.pp.highly_variable_genes(adata, n_top_genes=200)
        cm.pp.pca(adata, n_comps=12)
    assert type(found.X) is Csr
    assert (found.X.get() != expected.X).nnz == 0
    np.testing.assert_array_equal(found.obsm["X_pca"], expected.obsm["X_pca"])
    found.obsm["X_pca"] = View(found.obsm["X_pca"])
    for adata in (expected, found):
        cm.pp.neighbors(adata, n_neighbors=10)
        cm.tl.umap(adata)
    np.testing.assert_array_equal(found.obsm["X_umap"], expected.obsm["X_umap"])
    found.obsp["connectivities"] = Csr(found.obsp["connectivities"])
    for adata in (expected, found):
        cm.tl.leiden(adata)
    assert (found.obs["leiden"] == expected.obs["leiden"]).all()
    genes = list(counts.var_names[[5, 2]])
    np.testing.assert_array_equal(cm.get.obs_df(found, genes), cm.get.obs_df(expected, genes))
    from matplotlib import pyplot

    cm.pl.violin(found, genes, show=False)
    cm.pl.umap(found, color=genes[0], show=False)
    pyplot.close("all")


def test_what_comes_as_an_array_of_cupy_goes_back_as_one(counts, cupy):
    found = cm.pp.log1p(Csr(counts.X))
    assert type(found) is Csr
    np.testing.assert_allclose(found.get().toarray(), np.log1p(counts.X.toarray()), rtol=1e-6)
    found = cm.pp.log1p(cupy.asarray(counts.X.toarray()))
    assert type(found) is Array
    np.testing.assert_allclose(found.get(), np.log1p(counts.X.toarray()), rtol=1e-6)


def test_without_cupy_nothing_is_kept_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match="cupy"):
        cm.settings.keep_on_device = True
    assert cm.settings.keep_on_device is False


def test_rows_do_not_go_to_a_gpu_that_nobody_has_chosen(stores):
    handle = cm.read_lazy(stores / "small.zarr")
    with pytest.raises(ValueError, match=r"device: cpu, but .*settings\.device"):
        handle.X.on_device()


def test_centred_rows_do_not_go_there(stores):
    handle = cm.read_lazy(stores / "small.zarr")
    cm.pp.log1p(handle)
    cm.pp.scale(handle)
    with pytest.raises(ValueError, match="centred"):
        handle.X.on_device()


@pytest.fixture
def on_gpu():
    if not has_gpu:
        pytest.skip("there is no GPU")
    real = pytest.importorskip("cupy")
    cm.settings.device = "cuda"
    yield real
    cm.settings.keep_on_device = False
    cm.settings.device = "cpu"


def prepared(path) -> ad.AnnData:
    """A handle with all kinds of steps."""
    handle = cm.read_lazy(path)
    cm.pp.calculate_qc_metrics(handle)
    handle = handle[handle.obs["n_genes_by_counts"] > 400, handle.var["n_cells_by_counts"] > 3]
    cm.pp.normalize_total(handle, target_sum=1e4)
    cm.pp.log1p(handle)
    cm.pp.highly_variable_genes(handle, n_top_genes=500)
    return handle


@pytest.mark.parametrize("chosen", [False, True])
def test_rows_go_to_the_gpu(stores, on_gpu, chosen):
    handle = prepared(stores / "small.zarr")
    handle = handle[:, handle.var["highly_variable"]] if chosen else handle
    x = handle.X.to_gpu()
    wanted = handle.X.to_memory()
    assert x.dtype == np.float32 and x.shape == wanted.shape
    np.testing.assert_array_equal(x.indptr.get(), wanted.indptr)
    np.testing.assert_array_equal(x.indices.get(), wanted.indices)
    np.testing.assert_allclose(x.data.get(), wanted.data, rtol=1e-6)
    # The memory lives as long as the matrix, and others compute on it.
    on_gpu.cuda.Device().synchronize()
    np.testing.assert_allclose(x.sum(axis=0).get(), wanted.sum(axis=0), rtol=1e-4)
    there = handle.to_gpu()
    assert type(there.X).__module__.startswith("cupyx")


def test_scores_stay_on_the_gpu(stores, on_gpu):
    usual, kept = prepared(stores / "small.zarr"), prepared(stores / "small.zarr")
    cm.pp.pca(usual, n_comps=20)
    cm.settings.keep_on_device = True
    cm.pp.pca(kept, n_comps=20)
    assert isinstance(kept.obsm["X_pca"], on_gpu.ndarray)
    np.testing.assert_array_equal(kept.obsm["X_pca"].get(), usual.obsm["X_pca"])
    cm.pp.neighbors(usual)
    cm.pp.neighbors(kept)
    np.testing.assert_array_equal(dense(kept.obsp["connectivities"]), dense(usual.obsp["connectivities"]))


def test_views_of_what_lies_there(stores, on_gpu):
    handle = prepared(stores / "small.zarr")
    whole = handle.to_gpu()
    genes = list(handle.var_names[[7, 3]])
    np.testing.assert_allclose(cm.get.obs_df(whole[:200], genes), cm.get.obs_df(handle[:200], genes), rtol=1e-6)
    whole.obsm["X_pca"] = on_gpu.asarray(np.random.default_rng(0).normal(size=(whole.n_obs, 8)).astype(np.float32))
    here = ad.AnnData(obsm={"X_pca": whole.obsm["X_pca"].get()[:200]})
    there = whole[:200]
    for adata in (here, there):
        cm.pp.neighbors(adata, n_neighbors=8)
    np.testing.assert_array_equal(dense(there.obsp["distances"]), dense(here.obsp["distances"]))


def test_an_array_that_stays_says_where_it_is(stores, on_gpu):
    indptr, indices, data = cm.read_lazy(stores / "small.zarr").X.on_device()
    about = data.__cuda_array_interface__
    assert about["typestr"] == "<f4" and about["shape"] == data.shape and about["version"] == 3 and about["data"][0] % 256 == 0
    assert indices.__cuda_array_interface__["typestr"] == "<i4"
    assert len(indptr) == 701 and indptr.device_id == 0 and "cuda:0" in repr(indptr)
    assert indptr.get()[-1] == len(data)
