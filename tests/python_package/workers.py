"""Runs on Dask workers, and what they leave."""

from __future__ import annotations

from pathlib import Path

RECIPE = {"hvg": {"n_top_genes": 200}, "pca": {"n_comps": 12}, "qc": {"percent_top": [50]}, "filter": {"cells": "n_genes_by_counts >= 40"}}
#: Worker processes that are found on a free port.
LOCAL = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def same(folder: Path) -> None:
    """Both outputs have the same bytes, and nothing else is left."""
    here, there = contents(folder / "here.zarr"), contents(folder / "there.zarr")
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
    assert sorted(p.name for p in folder.iterdir()) == ["here.zarr", "there.zarr"]
