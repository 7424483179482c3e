"""The examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys

import pytest
import yaml
from kinds import PBMC, ROOT

import cellmill

MODULES = ["cellmill", *(m.name for m in pkgutil.walk_packages(cellmill.__path__, "cellmill.") if "_cellmill" not in m.name)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path):
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"pbmc3k": PBMC, "tmp": tmp_path}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_every_verb_has_an_explanation():
    for module in (cellmill.pp, cellmill.tl, cellmill.get):
        for name in module.__all__:
            text = getattr(module, name).__doc__
            assert text and (text.count("\n") == 0 or "Parameters" in text), name


def test_options_of_dask_in_the_recipes():
    """What the recipes for Slurm and Kubernetes call is there, with these options."""
    pytest.importorskip("distributed")
    text = (ROOT / "docs" / "cluster.md").read_text()
    calls = [line.partition("dask ")[2] for line in text.splitlines() if line.startswith("srun ") and " dask " in line]
    spec = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])["spec"]
    for part in ("scheduler", "worker"):
        (container,) = spec[part]["spec"]["containers"]
        assert container["args"][0] == "dask"
        calls.append(" ".join(container["args"][1:]))
    assert sorted(call.split()[0] for call in calls) == ["scheduler", "scheduler", "worker", "worker"]
    for call in calls:
        helped = subprocess.run([sys.executable, "-m", "dask", call.split()[0], "--help"], capture_output=True, text=True, check=True)
        for option in re.findall(r"(?<= )--[a-z-]+", call):
            assert option in helped.stdout, f"dask {call}"
