"""Markers, scores and aggregates against scanpy's."""

from __future__ import annotations

import warnings

import anndata as ad
import cellmill as cm
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from kinds import dense


@pytest.fixture(scope="module")
def kinds(small):
    adata = small.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    adata.obs["kind"] = pd.Categorical(np.array(["T", "B", "NK", "mono"])[(np.arange(adata.n_obs) // 3) % 4])
    adata.obs["side"] = np.array(["left", "right"])[np.arange(adata.n_obs) % 2]
    adata.var["some"] = np.arange(adata.n_vars) % 3 == 0
    return adata


def both(adata, *args, **options):
    ours, theirs = adata.copy(), adata.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cm.tl.rank_genes_groups(ours, *args, **options)
        sc.tl.rank_genes_groups(theirs, *args, **options)
    key = options.get("key_added") or "rank_genes_groups"
    return ours.uns[key], theirs.uns[key]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "t-test_overestim_var", "pts": True},
        {"method": "wilcoxon"},
        {"method": "wilcoxon", "tie_correct": True, "corr_method": "bonferroni"},
        {"groups": ["B", "NK"], "reference": "T", "pts": True},
        {"mask_var": "some", "n_genes": 40, "rankby_abs": True},
        {"key_added": "other"},
    ],
    ids=str,
)
def test_markers(options, kinds):
    ours, theirs = both(kinds, "kind", **options)
    assert set(ours) == set(theirs)
    # Rank sums say what was done about ties, as rapids-singlecell's do.
    ties = {"tie_correct": options.get("tie_correct", False)} if options.get("method") == "wilcoxon" else {}
    assert ours["params"] == theirs["params"] | ties
    for field in ("scores", "pvals", "pvals_adj", "logfoldchanges"):
        assert ours[field].dtype == theirs[field].dtype, field
    assert ours["names"].dtype == theirs["names"].dtype
    for group in theirs["names"].dtype.names:
        if options.get("method") == "wilcoxon":
            # Many genes have equal scores: their order is numpy's.
            assert list(ours["names"][group]) == list(theirs["names"][group])
        frames = []
        for found in (ours, theirs):
            columns = {f: found[f][group] for f in ("scores", "pvals", "pvals_adj", "logfoldchanges")}
            frames.append(pd.DataFrame(columns, index=found["names"][group]))
        a, b = frames
        assert len(a) == len(b)
        common = a.index.intersection(b.index)
        assert len(common) >= 0.99 * len(b)
        a, b = a.loc[common], b.loc[common]
        np.testing.assert_allclose(a["scores"], b["scores"], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(a["pvals"], b["pvals"], rtol=1e-3, atol=1e-12)
        finite = np.isfinite(b["logfoldchanges"]) & (np.abs(b["logfoldchanges"]) < 20)
        np.testing.assert_allclose(a["logfoldchanges"][finite], b["logfoldchanges"][finite], rtol=1e-3, atol=1e-4)
    for frame in ("pts", "pts_rest"):
        if frame in theirs:
            pd.testing.assert_frame_equal(ours[frame], theirs[frame], check_names=False)


def test_markers_can_be_plotted_and_listed(kinds):
    adata = kinds.copy()
    cm.tl.rank_genes_groups(adata, "kind", method="wilcoxon", pts=True)
    assert len(sc.get.rank_genes_groups_df(adata, "T")) == adata.n_vars
    assert len(cm.get.rank_genes_groups_df(adata, None, pval_cutoff=1.1)) == 4 * adata.n_vars


def test_binned_ranks_are_near(kinds):
    ours, theirs = both(kinds, "kind", method="wilcoxon")
    binned = kinds.copy()
    cm.tl.rank_genes_groups(binned, "kind", method="wilcoxon_binned")
    near = binned.uns["rank_genes_groups"]
    for group in theirs["names"].dtype.names:
        assert len(set(near["names"][group][:100]) & set(ours["names"][group][:100])) >= 95


@pytest.mark.parametrize("groups", ["all", ["B", "mono"]], ids=str)
def test_regression(groups, kinds):
    """Both stop before the optimum, at the same place."""
    ours, theirs = both(kinds, "kind", method="logreg", groups=groups)
    same = kinds.copy()
    cm.tl.rank_genes_groups_logreg(same, "kind", groups=groups)
    assert all((same.uns["rank_genes_groups"]["scores"][g] == ours["scores"][g]).all() for g in ours["scores"].dtype.names)
    assert set(ours) == set(theirs) and ours["params"] == theirs["params"]
    assert ours["scores"].dtype == theirs["scores"].dtype
    for group in theirs["names"].dtype.names:
        a, b = (pd.Series(found["scores"][group], index=found["names"][group]) for found in (ours, theirs))
        assert np.corrcoef(a, b[a.index])[0, 1] > 0.999


def test_markers_of_a_store_are_those_of_memory(small, stores):
    lazy, memory = cm.read_lazy(stores / "small.h5ad"), small.copy()
    for adata in (lazy, memory):
        cm.pp.normalize_total(adata, target_sum=1e4)
        cm.pp.log1p(adata)
        cm.tl.rank_genes_groups(adata, "batch")
    a, b = (x.uns["rank_genes_groups"] for x in (lazy, memory))
    for group in b["names"].dtype.names:
        assert list(a["names"][group]) == list(b["names"][group])
        np.testing.assert_array_equal(a["scores"][group], b["scores"][group])


@pytest.mark.filterwarnings("ignore")
def test_text_becomes_categories(kinds):
    ours, theirs = kinds.copy(), kinds.copy()
    for module, adata in ((cm, ours), (sc, theirs)):
        module.tl.rank_genes_groups(adata, "side")
        assert adata.obs["side"].dtype == "category"
    assert ours.obs.dtypes.equals(theirs.obs.dtypes)


def test_a_mask_is_one_of_var(kinds):
    """Not of raw's var, which is older."""
    kinds = kinds.copy()
    kinds.var["mask"] = np.arange(kinds.n_vars) < 20
    kinds.raw = kinds
    kinds.var["mask"] = (np.arange(kinds.n_vars) >= 20) & (np.arange(kinds.n_vars) < 40)
    ours, theirs = both(kinds, "kind", mask_var="mask")
    assert set(ours["names"]["T"]) == set(theirs["names"]["T"]) == set(kinds.var_names[20:40])


def test_groups_may_be_numbers(kinds):
    kinds = kinds.copy()
    kinds.obs["number"] = pd.Categorical((np.arange(kinds.n_obs) // 3) % 4)
    ours, theirs = both(kinds, "number", reference=1)
    assert ours["params"]["reference"] == theirs["params"]["reference"] == 1
    assert ours["scores"].dtype.names == theirs["scores"].dtype.names == ("0", "2", "3")
    for group in "023":
        np.testing.assert_allclose(ours["scores"][group], theirs["scores"][group], rtol=1e-4, atol=1e-5)


def test_groups_of_too_few_cells(kinds):
    kinds = kinds[:, :50].copy()
    kinds.obs["kind"] = kinds.obs["kind"].astype(str)
    kinds.obs.loc[kinds.obs_names[0], "kind"] = "alone"
    with pytest.raises(ValueError, match="Could not calculate statistics for groups alone since they only contain one sample"):
        cm.tl.rank_genes_groups(kinds, "kind")
    cm.tl.rank_genes_groups(kinds, "kind", groups=["T", "B"])
    with pytest.raises(ValueError, match="adata.raw` is empty"):
        cm.tl.rank_genes_groups(kinds, "side", use_raw=True)


def test_what_is_not_there_is_named(kinds):
    with pytest.raises(KeyError, match="no_column"):
        cm.tl.rank_genes_groups(kinds, "no_column")
    with pytest.raises(ValueError, match="reference = C needs to be one of"):
        cm.tl.rank_genes_groups(kinds, "kind", reference="C")
    with pytest.raises(ValueError, match="Method must be one of"):
        cm.tl.rank_genes_groups(kinds, "kind", method="u-test")


@pytest.mark.parametrize("options", [{}, {"ctrl_size": 20, "n_bins": 10, "random_state": 7}, {"ctrl_as_ref": False}], ids=str)
def test_score_genes(options, kinds):
    genes = list(kinds.var_names[5:400:13])
    ours, theirs = kinds.copy(), kinds.copy()
    cm.tl.score_genes(ours, genes, **options)
    sc.tl.score_genes(theirs, genes, **options)
    np.testing.assert_allclose(ours.obs["score"], theirs.obs["score"], rtol=1e-4, atol=1e-6)


def test_no_control_genes(kinds):
    with pytest.raises(KeyError, match=kinds.var_names[9]):
        cm.tl.score_genes(kinds, list(kinds.var_names[:10]), gene_pool=list(kinds.var_names[:9]))
    with pytest.raises(RuntimeError, match="No control genes found in any cut"):
        cm.tl.score_genes(kinds[:, :8].copy(), list(kinds.var_names[:8]))


def test_score_genes_cell_cycle(kinds):
    s, g2m = list(kinds.var_names[5:300:13]), list(kinds.var_names[400:600:11])
    ours, theirs = kinds.copy(), kinds.copy()
    cm.tl.score_genes_cell_cycle(ours, s_genes=s, g2m_genes=g2m)
    sc.tl.score_genes_cell_cycle(theirs, s_genes=s, g2m_genes=g2m)
    assert (ours.obs["phase"] == theirs.obs["phase"]).mean() > 0.995
    np.testing.assert_allclose(ours.obs["G2M_score"], theirs.obs["G2M_score"], rtol=1e-4, atol=1e-6)


def test_scores_leave_out_what_is_missing(logged):
    """Means of the others, as scanpy takes them, of CSR and of arrays."""
    random = np.random.default_rng(0)
    logged = logged[:, :600].copy()
    logged.X.data[random.random(logged.X.nnz) < 0.1] = np.nan
    for x in (logged.X, logged.X.toarray()):
        ours, theirs = (ad.AnnData(x.copy(), obs=logged.obs.copy(), var=logged.var.copy()) for _ in range(2))
        for module, adata in ((cm, ours), (sc, theirs)):
            module.tl.score_genes(adata, list(logged.var_names[:20]), ctrl_size=10)
        np.testing.assert_allclose(ours.obs["score"], theirs.obs["score"], rtol=1e-5, atol=1e-7)


FUNCS = ["sum", "mean", "var", "count_nonzero", "median"]


def same_groups(ours, theirs, keys):
    assert list(ours.obs_names) == list(theirs.obs_names)
    pd.testing.assert_frame_equal(ours.var, theirs.var)
    for key in keys:
        assert ours.obs[key].dtype == theirs.obs[key].dtype and list(ours.obs[key]) == list(theirs.obs[key])
    for name in FUNCS:
        np.testing.assert_allclose(ours.layers[name], theirs.layers[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("options", [{}, {"mask": "half", "dof": 0}, {"layer": "twice"}, {"obsm": "X_pca"}], ids=str)
@pytest.mark.parametrize("by", ["kind", ["kind", "side"]], ids=str)
def test_aggregate(by, options, kinds):
    adata = kinds.copy()
    adata.obs["half"] = np.arange(adata.n_obs) % 2 == 1
    adata.layers["twice"] = adata.X * 2
    adata.obsm["X_pca"] = adata.X[:, :7].toarray()
    ours, theirs = (module.get.aggregate(adata, by, FUNCS, **options) for module in (cm, sc))
    if "mask" in options:
        # Some versions of scanpy divide by all cells of a group, and their median forgets the mask.
        theirs = sc.get.aggregate(adata[adata.obs["half"]], by, FUNCS, dof=options["dof"])
        counted = np.isfinite(ours.layers["mean"]).all(axis=1)
        assert counted.all() == (by == "kind") and not ours.layers["sum"][~counted].any()
        assert list(ours.obs_names[counted]) == list(theirs.obs_names)
        for name in FUNCS:
            np.testing.assert_allclose(ours.layers[name][counted], theirs.layers[name], rtol=1e-4, atol=1e-6, err_msg=name)
    else:
        same_groups(ours, theirs, [by] if isinstance(by, str) else by)
    sparse = cm.get.aggregate(adata, by, "sum", return_sparse=True, **options)
    assert sparse.layers["sum"].format == "csr" and (sparse.layers["sum"].toarray() == ours.layers["sum"]).all()


def test_what_is_not_defined(kinds):
    some = kinds.obs["kind"].isin(["B", "NK"]).to_numpy()
    ours = cm.get.aggregate(kinds, "kind", ["mean", "var"], mask=some)
    with pytest.warns(RuntimeWarning, match="implicit-zero entries"):
        sparse = cm.get.aggregate(kinds, "kind", ["mean", "var"], mask=some, return_sparse=True)
    for name in ("mean", "var"):
        assert np.isnan(ours[["T", "mono"]].layers[name]).all() and np.isfinite(ours[["B", "NK"]].layers[name]).all()
        assert sparse[["T", "mono"]].layers[name].nnz == 0
        assert (sparse[["B", "NK"]].layers[name].toarray() == ours[["B", "NK"]].layers[name]).all()


@pytest.mark.parametrize("options", [{"axis": "var"}, {"varm": "PCs"}], ids=str)
def test_aggregate_genes(options, kinds):
    kinds.varm["PCs"] = kinds.X[:5].toarray().T
    ours, theirs = (module.get.aggregate(kinds, "some", FUNCS, **options).T for module in (cm, sc))
    same_groups(ours, theirs, ["some"])


def test_aggregates_of_what_is_not_there(kinds):
    for options, error in (({"obsm": "a", "layer": "b"}, TypeError), ({"obsm": "a", "axis": 1}, ValueError), ({"axis": 2}, ValueError)):
        with pytest.raises(error):
            cm.get.aggregate(kinds, "kind", "sum", **options)
    with pytest.raises(KeyError, match="no_column"):
        cm.get.aggregate(kinds, "no_column", "sum")
    with pytest.raises(ValueError, match="it is one of sum, mean, var, count_nonzero, sq_sum, median"):
        cm.get.aggregate(kinds, "kind", "mode")
    assert cm.get.aggregate(kinds[:, :0], "kind", ["sum", "median"]).shape == (4, 0)


@pytest.mark.parametrize("reference", ["rest", "b"])
def test_continuity_and_u_are_scipys(logged, reference):
    from scipy.stats import mannwhitneyu

    x = dense(logged.X)[:, :40]
    adata = ad.AnnData(sp.csr_matrix(x), obs=logged.obs[["batch"]].copy())
    ask = dict(method="wilcoxon", reference=reference, groups=["a"], tie_correct=True, use_continuity=True)
    cm.tl.rank_genes_groups(adata, "batch", **ask, return_u_values=True)
    found = adata.uns["rank_genes_groups"]
    assert found["params"]["return_u_values"] is True
    batch = adata.obs["batch"].to_numpy()
    other = batch != "a" if reference == "rest" else batch == "b"
    for name, u, p in zip(found["names"]["a"], found["scores"]["a"], found["pvals"]["a"], strict=True):
        wanted = mannwhitneyu(x[batch == "a", int(name)].astype(float), x[other, int(name)].astype(float), method="asymptotic")
        assert u == wanted.statistic and found["scores"].dtype["a"] == np.float64
        np.testing.assert_allclose(p, wanted.pvalue if np.isfinite(wanted.pvalue) else 1.0, rtol=1e-9)
    cm.tl.rank_genes_groups(adata, "batch", **ask)
    assert abs(adata.uns["rank_genes_groups"]["scores"]["a"]).max() < 50
    with pytest.raises(ValueError, match="return_u_values"):
        cm.tl.rank_genes_groups(adata, "batch", method="t-test", return_u_values=True)


def test_groups_of_one_cell_are_skipped_if_asked(logged):
    adata = logged[:50].copy()
    adata.obs["kind"] = ["x"] + ["y"] * 25 + ["z"] * 24
    with pytest.raises(ValueError, match="only contain one sample"):
        cm.tl.rank_genes_groups(adata, "kind")
    cm.tl.rank_genes_groups(adata, "kind", skip_empty_groups=True)
    assert adata.uns["rank_genes_groups"]["names"].dtype.names == ("y", "z")
    with pytest.raises(ValueError, match="reference = x has fewer than two samples"):
        cm.tl.rank_genes_groups(adata, "kind", reference="x", skip_empty_groups=True)
    cm.tl.rank_genes_groups(adata, "kind", groups=["z", "y"])
    assert adata.uns["rank_genes_groups"]["names"].dtype.names == ("z", "y")


def test_sums_of_squares(logged):
    found = cm.get.aggregate(logged, "batch", "sq_sum")
    for i, group in enumerate(found.obs_names):
        np.testing.assert_allclose(found.layers["sq_sum"][i], (dense(logged.X)[logged.obs["batch"] == group] ** 2).sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("method", ["t-test", "wilcoxon"])
@pytest.mark.parametrize("reference", ["rest", "b"])
def test_fold_changes_of_means_before_the_logarithm(logged, method, reference):
    adata = logged[:, :60].copy()
    cm.tl.rank_genes_groups(adata, "batch", method=method, reference=reference, groups=["a"], mean_in_log_space=False)
    found = cm.get.rank_genes_groups_df(adata, "a").set_index("names").loc[adata.var_names]
    linear, batch = np.expm1(dense(adata.X).astype(float)), adata.obs["batch"].to_numpy()
    other = batch != "a" if reference == "rest" else batch == "b"
    wanted = np.log2((linear[batch == "a"].mean(axis=0) + 1e-9) / (linear[other].mean(axis=0) + 1e-9))
    np.testing.assert_allclose(found["logfoldchanges"], wanted, rtol=1e-4, atol=1e-5)
    same = adata.copy()
    same.X = sp.csr_matrix(linear) if method == "t-test" else adata.X
    cm.tl.rank_genes_groups(same, "batch", method=method, reference=reference, groups=["a"])
    np.testing.assert_allclose(found["scores"], cm.get.rank_genes_groups_df(same, "a").set_index("names").loc[adata.var_names, "scores"], rtol=1e-5)


def test_a_mask_over_the_cells_that_a_handle_has_left(stores, small):
    adata = cm.read_lazy(stores / "small.h5ad")
    keep = np.arange(adata.n_obs) % 4 > 0
    adata, held = adata[keep], small[keep].copy()
    for one in (adata, held):
        one.obs["some"] = np.arange(one.n_obs) % 5 > 1
    ours, theirs = (cm.get.aggregate(one, "batch", ["mean", "var"], mask="some") for one in (adata, held))
    for name in ("mean", "var"):
        np.testing.assert_allclose(ours.layers[name], theirs.layers[name], rtol=1e-9)


def test_odd_words_of_markers(kinds):
    kinds = kinds[:, :20].copy()
    kinds.layers["other"] = kinds.X
    for words, error, text in (
        ({"corr_method": "foo"}, ValueError, "corr_method must be either 'benjamini-hochberg' or 'bonferroni', but it was 'foo'"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be a positive integer, but it was 0"),
        ({"layer": "other", "use_raw": True}, ValueError, "Cannot specify `layer` and have `use_raw=True`"),
        ({"return_format": "arrays"}, TypeError, "return_format has been removed"),
    ):
        with pytest.raises(error, match=text):
            cm.tl.rank_genes_groups(kinds, "kind", **words)


def test_only_the_reference_is_left(kinds):
    """As in rapids-singlecell: there is nothing to list, which is no error."""
    kinds = kinds[:11, :20].copy()
    kinds.obs["few"] = pd.Categorical(["reference"] * 10 + ["alone"], categories=["reference", "alone", "empty"])
    cm.tl.rank_genes_groups(kinds, "few", reference="reference", skip_empty_groups=True)
    found = kinds.uns["rank_genes_groups"]
    assert list(found) == ["params"] and found["params"]["reference"] == "reference"


def test_genes_of_a_backed_file_are_grouped(kinds, tmp_path):
    kinds = kinds[:, :40].copy()
    kinds.var["half"] = np.array(["first", "second"])[np.arange(40) % 2]
    expected = sc.get.aggregate(kinds, "half", "sum", axis="var")
    for name, x in (("sparse", kinds.X), ("dense", kinds.X.toarray())):
        kinds.X = x
        kinds.write_h5ad(tmp_path / f"{name}.h5ad")
        found = cm.get.aggregate(ad.read_h5ad(tmp_path / f"{name}.h5ad", backed="r"), "half", "sum", axis="var")
        np.testing.assert_allclose(dense(found.layers["sum"]), dense(expected.layers["sum"]), rtol=1e-6)


def test_cells_without_a_label_are_in_no_group(kinds):
    """scanpy can't, where a label is missing."""
    kinds = kinds[:, :40].copy()
    kinds.obs["kind"] = kinds.obs["kind"].astype("category")
    some = np.arange(kinds.n_obs) % 4 > 0
    expected = sc.get.aggregate(kinds[some].copy(), "kind", ["sum", "var"])
    kinds.obs.loc[~some, "kind"] = np.nan
    found = cm.get.aggregate(kinds, "kind", ["sum", "var"])
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    for name in ("sum", "var"):
        np.testing.assert_allclose(found.layers[name], expected.layers[name], rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{"groups": ["mono", "B"]}, {"groups": ["T", "mono", "B"]}, {"groups": ["mono"], "reference": "B"}], ids=str)
def test_a_regression_lists_groups_as_they_were_named(options, kinds):
    ours, theirs = both(kinds[:, :60], "kind", method="logreg", max_iter=2000, **options)
    assert ours["names"].dtype == theirs["names"].dtype
    for group in theirs["names"].dtype.names:
        a, b = (pd.Series(found["scores"][group], index=found["names"][group]) for found in (ours, theirs))
        np.testing.assert_allclose(a, b[a.index], atol=1e-3)


@pytest.mark.parametrize("method", ["t-test", "t-test_overestim_var", "wilcoxon"])
def test_one_group_has_nothing_to_be_compared_with(logged, method):
    logged.obs["all"] = pd.Categorical(["every"] * logged.n_obs)
    ours, theirs = both(logged, "all", method=method, n_genes=logged.n_vars)
    for field in ("pvals", "pvals_adj", "logfoldchanges"):
        of_gene = [dict(zip(found["names"]["every"], found[field]["every"], strict=True)) for found in (ours, theirs)]
        np.testing.assert_allclose(*([of[gene] for gene in logged.var_names] for of in of_gene), rtol=1e-6)
    if method != "wilcoxon":
        assert (ours["scores"]["every"] == 0).all()
