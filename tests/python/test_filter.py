"""Cell and gene filters: expressions and scanpy's bounds."""

import numpy as np
import pytest
import scanpy as sc

import reference

QC = ("--through", "qc", "--qc-var", "mt=prefix:MT-")


@pytest.fixture(scope="session")
def metrics(synthetic):
    a = reference.counts(synthetic)
    a.var["mt"] = synthetic.var_names.str.startswith("MT-")
    sc.pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=None, inplace=True)
    return a


@pytest.mark.parametrize(
    "rule, keep",
    [
        ("n_genes_by_counts >= 400", lambda o: o.n_genes_by_counts >= 400),
        ("n_genes_by_counts > 400 & pct_counts_mt < 0.5", lambda o: (o.n_genes_by_counts > 400) & (o.pct_counts_mt < 0.5)),
        ("300 <= n_genes_by_counts <= 600", lambda o: o.n_genes_by_counts.between(300, 600)),
        ("total_counts < 900 | total_counts > 3000", lambda o: (o.total_counts < 900) | (o.total_counts > 3000)),
        ("(total_counts < 900 | total_counts > 3000) & n_genes_by_counts != 300", lambda o: ((o.total_counts < 900) | (o.total_counts > 3000)) & (o.n_genes_by_counts != 300)),
        ("batch == 'b2'", lambda o: o.batch == "b2"),
        ('batch != "b2" & n_genes_by_counts >= 1', lambda o: (o.batch != "b2") & (o.n_genes_by_counts >= 1)),
        ("log1p_total_counts >= 7", lambda o: o.log1p_total_counts >= 7),
    ],
)
def test_expressions_on_cells(rule, keep, run, synthetic_path, metrics):
    mask = keep(metrics.obs).to_numpy()
    assert 0 < mask.sum() < len(mask)
    ours = run.read(synthetic_path, *QC, "--filter-cells", rule)
    assert list(ours.obs_names) == list(metrics.obs_names[mask])


def test_a_percentage_that_is_nan_is_not_kept(run, synthetic_path, metrics):
    ours = run.read(synthetic_path, *QC, "--filter-cells", "pct_counts_mt < 100")
    assert ours.n_obs == metrics.n_obs - 2


def test_the_default_recipe_filters_as_the_seed_does(run, pbmc, pbmc_path):
    n = np.diff(reference.counts(pbmc).X.indptr)
    ours = run.read(pbmc_path, "--through", "qc")
    assert list(ours.obs_names) == list(pbmc.obs_names[(n >= 200) & (n <= 10000)])


def test_var_columns_are_of_all_cells(run, synthetic_path, metrics):
    """QC comes before the filter: the filter leaves var's metrics as they were."""
    ours = run.read(synthetic_path, *QC, "--filter-cells", "n_genes_by_counts >= 400")
    assert np.array_equal(ours.var["n_cells_by_counts"], metrics.var["n_cells_by_counts"])


def test_expression_on_genes(run, synthetic_path, metrics):
    ours = run.read(synthetic_path, *QC, "--filter-cells", "", "--filter-genes", "n_cells_by_counts >= 40 & mean_counts < 3")
    mask = ((metrics.var.n_cells_by_counts >= 40) & (metrics.var.mean_counts < 3)).to_numpy()
    assert 0 < mask.sum() < len(mask)
    assert ours.n_vars == mask.sum()
    assert np.array_equal(ours.var["n_cells_by_counts"], metrics.var["n_cells_by_counts"][mask])


def test_expression_on_a_column_of_var(run, synthetic, synthetic_path):
    ours = run.read(synthetic_path, *QC, "--filter-cells", "", "--filter-genes", "!flagged")
    assert ours.n_vars == (~synthetic.var["flagged"]).sum()


def bounded(a, *, min_genes=None, max_genes=None, min_counts=None, max_counts=None, min_cells=None, max_cells=None):
    for name, value in (("min_genes", min_genes), ("max_genes", max_genes), ("min_counts", min_counts), ("max_counts", max_counts)):
        if value is not None:
            sc.pp.filter_cells(a, **{name: value})
    for name, value in (("min_cells", min_cells), ("max_cells", max_cells)):
        if value is not None:
            sc.pp.filter_genes(a, **{name: value})
    return a


@pytest.mark.parametrize("bounds", [dict(min_genes=300), dict(max_genes=500), dict(min_counts=800), dict(max_counts=2500), dict(min_genes=300, max_genes=600, min_counts=700, max_counts=2500), dict(min_genes=1, min_cells=30), dict(min_genes=300, min_cells=10, max_cells=900)], ids=str)
def test_bounds_are_scanpys(bounds, run, synthetic, synthetic_path):
    theirs = bounded(reference.counts(synthetic), **bounds)
    flags = [part for name, value in bounds.items() for part in (f"--{name.replace('_', '-')}", value)]
    ours = run.read(synthetic_path, "--through", "qc", *flags)
    assert list(ours.obs_names) == list(theirs.obs_names)
    assert list(ours.var_names) == list(synthetic.var_names[theirs.var_names.astype(int)])
    for frame, expected in ((ours.obs, theirs.obs), (ours.var, theirs.var)):
        for column in expected.columns.intersection(["n_genes", "n_counts", "n_cells"]):
            assert column in frame, column
            assert np.array_equal(frame[column], expected[column]), column


def test_genes_are_filtered_before_normalisation(run, synthetic, synthetic_path):
    """Row sums are of the kept genes, as when filter_genes runs before normalize_total."""
    theirs = bounded(reference.counts(synthetic), min_genes=300, min_cells=100)
    sc.pp.normalize_total(theirs, target_sum=1e4)
    sc.pp.log1p(theirs)
    ours = run.read(synthetic_path, "--through", "hvg", "--min-genes", 300, "--min-cells", 100, "--n-top-genes", 300, "--with-x", "normalized")
    assert ours.shape == theirs.shape
    assert reference.far(ours.X.toarray(), theirs.X.toarray()) < 2e-6
