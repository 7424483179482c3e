"""Files that anndata itself wrote, from 0.6 to 0.13: we read what today's anndata reads."""

import zipfile
from pathlib import Path

import anndata as ad
import pytest
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal

from program import read, succeed

FILES = sorted((Path(__file__).parents[1] / "data" / "anndata").glob("*.h5ad")) + sorted((Path(__file__).parents[1] / "data" / "anndata").glob("*.zip"))


def unpacked(path, folder):
    if path.suffix != ".zip":
        return path
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / path.stem)
    return folder / path.stem


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("to", [".h5ad", ".zarr"])
def test_every_version_reads_as_anndata_reads_it(path, to, tmp_path):
    path = unpacked(path, tmp_path)
    expected = ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)
    succeed("convert", path, tmp_path / f"copy{to}", "--quiet")
    found = read(tmp_path / f"copy{to}")
    # Columns and dense layers come out as rows.
    for name, layer in expected.layers.items():
        expected.layers[name] = sp.csr_matrix(layer)
    assert_equal(found.X, expected.X)
    assert_equal(found.raw.X, expected.raw.X)
    for slot in ("obs", "var", "obsm", "varm", "obsp", "layers"):
        left, right = getattr(found, slot), getattr(expected, slot)
        if slot in ("obs", "var"):
            assert_equal(left, right)
        else:
            assert set(left) == set(right), slot
            for key in right:
                assert_equal(left[key], right[key])
    assert set(found.uns) == set(expected.uns)
    for key in expected.uns:
        assert_equal(found.uns[key], expected.uns[key])
