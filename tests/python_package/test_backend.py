"""cellmill behind scanpy's own verbs, by scverse-backends."""

from __future__ import annotations

import inspect
import tomllib

import numpy as np
import pytest
import scanpy as sc
from kinds import ROOT, dense, same_frame

import cellmill as cm
from cellmill import _scanpy

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["scanpy.backends"]


def of_scanpy(name):
    """scanpy's function of this name."""
    return next(found for module in (sc.pp, sc.tl, sc.get, sc.experimental.pp) if (found := getattr(module, name, None)) is not None)


@pytest.mark.parametrize("name", _scanpy.__all__)
def test_arguments_have_scanpys_names(name):
    ours, theirs = (inspect.signature(f).parameters for f in (getattr(_scanpy, name), of_scanpy(name)))
    assert next(iter(ours)) == next(iter(theirs))
    anything = any(p.kind is p.VAR_KEYWORD for p in ours.values())
    assert anything or set(theirs) - set(ours) <= {"kwargs", "kwds"}, set(theirs) - set(ours)


#: Defaults that are not scanpy's: `docs/differences.md` says why, or they mean the same.
OTHER_DEFAULTS = {
    "calculate_qc_metrics": {"inplace", "percent_top"},
    "leiden": {"n_iterations"},
    "neighbors": {"metric_kwds"},
    "louvain": {"partition_kwargs"},
    "pca": {"mask_var"},
}


@pytest.mark.parametrize("name", _scanpy.__all__)
def test_defaults_are_scanpys(name):
    ours, theirs = (inspect.signature(f).parameters for f in (getattr(_scanpy, name), of_scanpy(name)))
    differ = {key for key, p in theirs.items() if key in ours and repr(ours[key].default) != repr(p.default)}
    assert differ == OTHER_DEFAULTS.get(name, set())


def test_every_verb_of_scanpys_is_there():
    for module, other in ((cm.pp, sc.pp), (cm.tl, sc.tl)):
        assert {name for name in module.__all__ if hasattr(other, name)} <= set(_scanpy.__all__)


@pytest.fixture
def dispatched(tmp_path, monkeypatch):
    """scanpy's verbs as a scanpy that dispatches would offer them; the package is found by its entry point."""
    backends = pytest.importorskip("scverse_backends")
    (tmp_path / "cellmill-0.dist-info").mkdir()
    (tmp_path / "cellmill-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: cellmill\nVersion: 0\n")
    lines = "\n".join(f"{name} = {value}" for name, value in DECLARED.items())
    (tmp_path / "cellmill-0.dist-info" / "entry_points.txt").write_text(f"[scanpy.backends]\n{lines}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    dispatcher = backends.BackendDispatcher(entrypoint_group="scanpy.backends", host_name="scanpy")
    return dispatcher, {name: dispatcher.backend_dispatch(of_scanpy(name)) for name in _scanpy.__all__}


@pytest.mark.filterwarnings("ignore")
def test_scanpys_verbs_on_this_engine(counts, dispatched, monkeypatch):
    dispatcher, verbs = dispatched
    called = []
    for name in ("normalize_total", "pca"):
        inner = getattr(_scanpy, name)

        def noted(*args, _inner=inner, **options):
            called.append(_inner.__name__)
            return _inner(*args, **options)

        noted.__signature__ = inspect.signature(inner)
        monkeypatch.setattr(_scanpy, name, noted)
    assert dispatcher.settings.available_backends() == ["cellmill"]
    ours, theirs = counts.copy(), counts.copy()
    with dispatcher.settings.use_backend("cellmill"):
        obs, var = verbs["calculate_qc_metrics"](ours)
        assert "total_counts" not in ours.obs
        verbs["normalize_total"](ours, target_sum=1e4)
        verbs["log1p"](ours)
        verbs["pca"](ours, n_comps=5)
    assert called == ["normalize_total", "pca"]
    for frame, expected in zip((obs, var), sc.pp.calculate_qc_metrics(theirs), strict=True):
        same_frame(frame, expected)
    sc.pp.normalize_total(theirs, target_sum=1e4)
    sc.pp.log1p(theirs)
    sc.pp.pca(theirs, n_comps=5, svd_solver="arpack")
    np.testing.assert_allclose(dense(ours.X), dense(theirs.X), rtol=1e-6)
    np.testing.assert_allclose(ours.obsm["X_pca"], theirs.obsm["X_pca"], atol=1e-3)
    verbs["normalize_total"](theirs, target_sum=1)
    assert called == ["normalize_total", "pca"]
