"""The examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
from kinds import PBMC

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
