"""highly_variable_genes by Pearson residuals, against scanpy.experimental."""

import json

import numpy as np
import pytest
import scanpy as sc

import reference

TOP = 400


@pytest.fixture(scope="session")
def prepared(synthetic):
    """Counts of the cells that the filter keeps."""
    a = reference.counts(synthetic)
    return a[np.diff(a.X.indptr) >= 200].copy()


def theirs(a, **options):
    a = a.copy()
    sc.experimental.pp.highly_variable_genes(a, flavor="pearson_residuals", **options)
    return a


def ours(run, path, *flags):
    return run.read(path, "--through", "hvg", "--min-genes", 200, "--flavor", "pearson_residuals", *flags)


def assert_same(mine, his, batches):
    expected = ["means", "variances", "residual_variances", "highly_variable_rank", "highly_variable"]
    if batches:
        expected += ["highly_variable_nbatches", "highly_variable_intersection"]
    for column in expected:
        assert mine.var[column].dtype == his.var[column].dtype, column
    assert reference.far(mine.var["means"], his.var["means"], 1e-9) < 2e-6
    assert reference.far(mine.var["variances"], his.var["variances"], 1e-9) < 2e-6
    assert reference.far(mine.var["residual_variances"], his.var["residual_variances"], 1e-6) < 1e-5
    chosen = mine.var["highly_variable"].to_numpy(), his.var["highly_variable"].to_numpy()
    assert (chosen[0] ^ chosen[1]).sum() <= 2
    ranks = mine.var["highly_variable_rank"].to_numpy(), his.var["highly_variable_rank"].to_numpy()
    assert (np.isnan(ranks[0]) != np.isnan(ranks[1])).sum() <= 2
    both = ~np.isnan(ranks[0]) & ~np.isnan(ranks[1])
    assert np.abs(ranks[0][both] - ranks[1][both]).max() <= 1
    assert mine.uns["hvg"] == {"flavor": "pearson_residuals", "computed_on": "adata.X"}


def test_by_number(run, synthetic_path, prepared):
    assert_same(ours(run, synthetic_path, "--n-top-genes", TOP), theirs(prepared, n_top_genes=TOP), False)


def test_batches(run, synthetic_path, prepared):
    mine = ours(run, synthetic_path, "--n-top-genes", TOP, "--batch-key", "batch")
    his = theirs(prepared, n_top_genes=TOP, batch_key="batch")
    assert_same(mine, his, True)
    differ = mine.var["highly_variable_nbatches"].to_numpy() != his.var["highly_variable_nbatches"].to_numpy()
    assert differ.sum() <= 4
    differ = mine.var["highly_variable_intersection"].to_numpy() != his.var["highly_variable_intersection"].to_numpy()
    assert differ.sum() <= 4


@pytest.mark.parametrize("theta, clip", [(10.0, None), (100.0, 3.5), (1000.0, 1e6)])
def test_model(theta, clip, run, synthetic_path, prepared, folder):
    recipe = folder / f"pearson{theta}.toml"
    recipe.write_text(f"[hvg]\nflavor = 'pearson_residuals'\ntheta = {theta}\n" + (f"clip = {clip}\n" if clip else ""))
    mine = run.read(synthetic_path, "--through", "hvg", "--min-genes", 200, "--n-top-genes", TOP, "--recipe", recipe, "--filter-cells", "n_genes_by_counts >= 200")
    assert_same(mine, theirs(prepared, n_top_genes=TOP, theta=theta, clip=clip), False)


def test_real_cells_with_a_gene_filter(run, pbmc, pbmc_path):
    a = reference.counts(pbmc)
    a = a[np.diff(a.X.indptr) >= 200].copy()
    sc.pp.filter_genes(a, min_cells=3)
    mine = ours(run, pbmc_path, "--n-top-genes", 2000, "--min-cells", 3)
    assert_same(mine, theirs(a, n_top_genes=2000), False)


def test_one_read_and_the_same_bits(run, synthetic_path, folder):
    stores = []
    for threads in (1, 3):
        trace = folder / f"pearson{threads}.json"
        flags = ("--through", "hvg", "--min-genes", 200, "--flavor", "pearson_residuals", "--n-top-genes", TOP)
        stores.append(run.read(synthetic_path, *flags, "--trace", trace, threads=threads))
        assert json.loads(trace.read_text())["source_reads"] == 1
    for column in stores[0].var:
        assert stores[0].var[column].equals(stores[1].var[column]), column
