"""markers: every method, reference and option against scanpy's rank_genes_groups; the layout in uns; labels of a run's output."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import inputs
import reference
from program import cellmill, message, read, succeed

RECORDS = {"names": "O", "scores": "<f4", "pvals": "<f8", "pvals_adj": "<f8", "logfoldchanges": "<f4"}


@pytest.fixture(scope="session")
def logged(synthetic):
    """Normalised, logged cells with unique gene names and labels of every kind."""
    a = reference.normalized(synthetic)
    a.obs["kind"] = synthetic.obs["kind"].to_numpy()
    a.obs["kind"] = a.obs["kind"].astype("category")
    a.obs["day"] = np.arange(a.n_obs) % 3
    return a


@pytest.fixture(scope="session")
def logged_path(logged, folder):
    return inputs.write(logged, folder / "logged_for_markers.zarr")


def theirs(a, groupby="kind", **options):
    a = a.copy()
    sc.tl.rank_genes_groups(a, groupby, **options)
    return a.uns["rank_genes_groups"]


def assert_same(ours, other, scores=2e-6, pvals=1e-6):
    """Gene by gene: scanpy leaves genes with equal scores in no order."""
    assert list(ours["names"].dtype.names) == list(other["names"].dtype.names)
    for group in other["names"].dtype.names:
        frames = [pd.DataFrame({c: r[c][group] for c in RECORDS if c in r}).set_index("names") for r in (ours, other)]
        mine, his = frames
        assert np.all(np.diff(mine["scores"].to_numpy()) <= 0) or "abs" in str(ours)
        assert set(mine.index) == set(his.index)
        mine = mine.loc[his.index]
        assert np.allclose(mine["scores"], his["scores"], rtol=scores, atol=1e-5), np.abs(mine["scores"] - his["scores"]).max()
        if "pvals" in his:
            assert np.allclose(mine["pvals"], his["pvals"], rtol=pvals, atol=1e-300)
            assert np.allclose(mine["pvals_adj"], his["pvals_adj"], rtol=pvals, atol=1e-300)
            assert np.allclose(mine["logfoldchanges"], his["logfoldchanges"], rtol=2e-5, atol=2e-5, equal_nan=True)


def markers(path, output, *flags):
    succeed("markers", path, "-o", output, "--groupby", "kind", *flags)
    return read(output).uns["rank_genes_groups"]


@pytest.mark.parametrize("method", ["t-test", "t-test_overestim_var", "wilcoxon"])
@pytest.mark.parametrize("ref", ["rest", "C"])
def test_methods(method, ref, logged, logged_path, tmp_path):
    ours = markers(logged_path, tmp_path / "o.zarr", "--method", method, "--reference", ref)
    # float32 values, and p-values that fall off steeply.
    assert_same(ours, theirs(logged, method=method, reference=ref), scores=1e-5, pvals=2e-4)
    assert ours["params"] == {"groupby": "kind", "reference": ref, "method": method, "use_raw": False, "corr_method": "benjamini-hochberg"}


@pytest.mark.parametrize("ref", ["rest", "A"])
def test_tie_correction(ref, logged, logged_path, tmp_path):
    ours = markers(logged_path, tmp_path / "o.zarr", "--method", "wilcoxon", "--tie-correct", "--reference", ref)
    assert_same(ours, theirs(logged, method="wilcoxon", tie_correct=True, reference=ref), scores=1e-6, pvals=1e-5)


def test_ranks_of_negative_values(logged, folder, tmp_path):
    """Zeros lie in the middle, not at the bottom."""
    a = logged.copy()
    x = a.X.copy()
    x.data[::3] *= -1
    a.X = x
    path = inputs.write(a, folder / "negative.zarr")
    ours = markers(path, tmp_path / "o.zarr", "--method", "wilcoxon", "--tie-correct")
    assert_same(ours, theirs(a, method="wilcoxon", tie_correct=True), scores=1e-6, pvals=1e-5)


@pytest.mark.parametrize("suffix", [".zarr", ".v2.zarr", ".h5ad"])
def test_layout(suffix, logged, logged_path, tmp_path):
    """The records are read by anndata as those that scanpy writes."""
    output = tmp_path / f"o{suffix}"
    flags = ("--groupby", "kind", "--pts", "--n-genes", "25")
    if suffix == ".v2.zarr":
        succeed("markers", inputs.write(logged, output), "--in-place", *flags)
    else:
        succeed("markers", logged_path, "-o", output, *flags)
    ours = read(output).uns["rank_genes_groups"]
    other = theirs(logged, pts=True, n_genes=25)
    for column, kind in RECORDS.items():
        assert isinstance(ours[column], np.ndarray)
        assert ours[column].dtype == other[column].dtype == np.dtype([(g, kind) for g in "ABCDEFGH"]), column
        assert ours[column].shape == (25,)
    for frame in ("pts", "pts_rest"):
        assert list(ours[frame].columns) == list(other[frame].columns)
        assert list(ours[frame].index) == list(other[frame].index)
        assert np.allclose(ours[frame], other[frame], rtol=1e-12)
    a = read(output)
    assert_same({k: a.uns["rank_genes_groups"][k] for k in RECORDS}, other, scores=1e-5, pvals=2e-4)
    frame = sc.get.rank_genes_groups_df(a, group=["B", "D"])
    expected = sc.get.rank_genes_groups_df(ad.AnnData(logged.X, logged.obs, logged.var, uns={"rank_genes_groups": other}), group=["B", "D"])
    assert list(frame.columns) == list(expected.columns)
    assert len(frame) == 50


def test_groups_order_and_correction(logged, logged_path, tmp_path):
    flags = ("--groups", "D,B", "--rankby-abs", "--corr-method", "bonferroni", "--n-genes", "40")
    ours = markers(logged_path, tmp_path / "o.zarr", *flags)
    other = theirs(logged, groups=["D", "B"], rankby_abs=True, corr_method="bonferroni", n_genes=40)
    assert ours["names"].dtype.names == ("D", "B")
    for group in "DB":
        assert set(ours["names"][group]) == set(other["names"][group])
        assert np.allclose(ours["pvals_adj"][group], other["pvals_adj"][group], rtol=2e-4, atol=1e-300)
        assert np.all(np.diff(np.abs(ours["scores"][group])) <= 0)


def test_names_with_commas(logged, folder, tmp_path):
    """As those of the Cell Ontology; no name is mistaken for two."""
    a = logged.copy()
    a.obs["kind"] = a.obs["kind"].cat.rename_categories({"A": "CD4-positive, alpha-beta T cell", "B": "B, naive", "C": "CD4-positive"})
    path = inputs.write(a, folder / "commas.zarr")
    for flags in (("--groups", "B, naive,CD4-positive, alpha-beta T cell,CD4-positive"), ("--groups", "B, naive", "--groups", "CD4-positive, alpha-beta T cell,CD4-positive")):
        ours = markers(path, tmp_path / "o.zarr", *flags, "-y")
        assert ours["names"].dtype.names == ("B, naive", "CD4-positive, alpha-beta T cell", "CD4-positive")
    assert "'naive'" in message(cellmill("markers", path, "-o", tmp_path / "no.csv", "--groupby", "kind", "--groups", "CD4-positive,naive"))


def test_table(logged, logged_path, tmp_path):
    """The columns of scanpy's data frame, with every digit."""
    succeed("markers", logged_path, "-o", tmp_path / "m.csv", "--groupby", "kind", "--pts", "--n-genes", "30")
    table = pd.read_csv(tmp_path / "m.csv", keep_default_na=False, na_values=[""], dtype={"names": str}, float_precision="round_trip")
    ours = markers(logged_path, tmp_path / "o.zarr", "--n-genes", "30")
    assert list(table.columns) == ["group", "names", "scores", "logfoldchanges", "pvals", "pvals_adj", "pct_nz_group", "pct_nz_reference"]
    for group in "ABCDEFGH":
        part = table[table["group"] == group]
        assert part["names"].tolist() == ours["names"][group].tolist()
        assert np.array_equal(part["pvals"].to_numpy(), ours["pvals"][group])
    succeed("markers", logged_path, "-o", tmp_path / "m.tsv", "--groupby", "kind", "--n-genes", "3")
    assert len(pd.read_csv(tmp_path / "m.tsv", sep="\t")) == 24


def test_binned_ranks_are_near_the_exact_ones(logged, logged_path, tmp_path):
    exact = markers(logged_path, tmp_path / "a.zarr", "--method", "wilcoxon", "--n-genes", "100")
    binned = markers(logged_path, tmp_path / "b.zarr", "--method", "wilcoxon", "--n-genes", "100", "--n-bins", "200")
    for group in "ABCDEFGH":
        assert len(set(exact["names"][group]) & set(binned["names"][group])) >= 95


def test_regression(logged, tmp_path, folder):
    """Coefficients of scikit-learn, which stops where no derivative exceeds 1e-4: the search takes the same steps."""
    a = logged[:, :300].copy()
    path = inputs.write(a, folder / "logreg.zarr")
    ours = markers(path, tmp_path / "o.zarr", "--method", "logreg")
    other = theirs(a, method="logreg")
    assert set(ours) == {"params", "names", "scores"}
    for group in "ABCDEFGH":
        mine = pd.Series(ours["scores"][group], index=ours["names"][group])
        his = pd.Series(other["scores"][group], index=other["names"][group])
        assert np.corrcoef(mine, his.loc[mine.index])[0, 1] > 0.999
        assert len(set(ours["names"][group][:10]) & set(other["names"][group][:10])) >= 9


@pytest.fixture(scope="session")
def analysed(run, synthetic_path):
    flags = ("--qc-var", "mt=prefix:MT-", "--min-genes", "300", "--n-top-genes", "500", "--n-comps", "15", "--target-sum", "5000")
    return run(synthetic_path, *flags)


def test_labels_of_a_run(analysed, synthetic, synthetic_path, tmp_path):
    """The output's clusters and recipe, the source's counts."""
    succeed("markers", synthetic_path, "--obs", analysed, "-o", tmp_path / "o.h5ad", "--n-genes", "50")
    ours = read(tmp_path / "o.h5ad")
    labels = read(analysed)
    a = reference.counts(synthetic)
    a.obs_names = synthetic.obs_names
    a = a[labels.obs_names].copy()
    sc.pp.normalize_total(a, target_sum=5000)
    sc.pp.log1p(a)
    a.obs["leiden"] = labels.obs["leiden"]
    other = theirs(a, "leiden", n_genes=50)
    names = synthetic.var_names.to_numpy()
    for group in labels.obs["leiden"].cat.categories:
        assert np.allclose(ours.uns["rank_genes_groups"]["scores"][group], other["scores"][group], rtol=1e-5)
        assert set(ours.uns["rank_genes_groups"]["names"][group][:40]) <= set(names[other["names"][group].astype(int)])


def test_in_place(analysed, synthetic_path, tmp_path):
    import shutil

    store = tmp_path / "copy.zarr"
    shutil.copytree(analysed, store)
    before = read(store)
    succeed("markers", synthetic_path, "--obs", store, "--in-place", "--n-genes", "20", "--key-added", "my_markers")
    after = read(store)
    assert after.uns["my_markers"]["names"].shape == (20,)
    assert set(before.uns) | {"my_markers"} == set(after.uns)
    assert after.obs.equals(before.obs)


def test_counts_are_normalised_and_said_so(synthetic_path, logged, tmp_path):
    done = succeed("markers", synthetic_path, "-o", tmp_path / "o.csv", "--groupby", "kind", "--n-genes", "10", "--json").json()
    assert done["values"] == "counts normalised to 10000 a cell, then log1p"
    assert done["source_reads"] == 1
    other = theirs(logged, n_genes=10)
    scores = [g["score"] for g in done["groups"][0]["genes"]]
    assert np.allclose(scores, other["scores"]["A"], rtol=1e-5)


@pytest.mark.parametrize("method", ["t-test", "wilcoxon"])
def test_threads_and_memory_change_no_bit(method, logged_path, tmp_path):
    tables = []
    for i, flags in enumerate([("--threads", 1), ("--threads", 3), ("--threads", 2, "--memory", "200MiB")]):
        path = tmp_path / f"{i}.csv"
        succeed("markers", logged_path, "-o", path, "--groupby", "kind", "--method", method, *flags)
        tables.append(path.read_bytes())
    assert tables[0] == tables[1] == tables[2]


def test_runs_of_genes_under_a_ceiling(logged_path, tmp_path):
    """With less memory than all entries need, exact ranks take several passes and one read."""
    done = succeed("markers", logged_path, "-o", tmp_path / "o.csv", "--groupby", "kind", "--method", "wilcoxon", "--threads", 1, "--memory", "130MiB", "--json").json()
    assert done["passes"] > 2
    assert done["source_reads"] == 1


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--groupby", "kinds"), ["obs", "'kinds'", "did you mean 'kind'"]),
        (("--groupby", "kind", "--groups", "A,Z"), ["obs/kind", "'Z'"]),
        (("--groupby", "kind", "--reference", "Z"), ["obs/kind", "'Z'"]),
        (("--groupby", "lonely"), ["obs/lonely", "'one'", "1 cell", "at least 2"]),
        (("--groupby", "kind", "--groups", "A", "--reference", "A"), ["no group to compare"]),
    ],
)
def test_refusals(flags, words, logged, folder, tmp_path):
    path = folder / "refusals.zarr"
    if not path.exists():
        a = logged[:60, :50].copy()
        a.obs["lonely"] = pd.Categorical(["one"] + ["two"] * 59)
        inputs.write(a, path)
    done = cellmill("markers", path, "-o", tmp_path / "o.csv", *flags)
    text = message(done)
    for word in words:
        assert word in text, text
    assert not (tmp_path / "o.csv").exists()


def test_an_output_that_exists_is_kept(logged_path, tmp_path):
    (tmp_path / "o.csv").write_text("mine")
    assert "exists" in message(cellmill("markers", logged_path, "-o", tmp_path / "o.csv", "--groupby", "kind"))
    assert (tmp_path / "o.csv").read_text() == "mine"


def test_records_of_scanpy_come_through(logged, folder, tmp_path):
    """Records that scanpy wrote, in every format."""
    a = logged.copy()
    sc.tl.rank_genes_groups(a, "kind", n_genes=7)
    a.uns["rank_genes_groups"]["names"]["A"][0] = "grün"
    for suffix in (".zarr", ".v2.zarr", ".h5ad"):
        path = inputs.write(a, folder / f"records{suffix}")
        for target in ("o.zarr", "o.h5ad"):
            succeed("convert", path, tmp_path / target, "-y")
            found = read(tmp_path / target).uns["rank_genes_groups"]
            for column in RECORDS:
                assert found[column].dtype == a.uns["rank_genes_groups"][column].dtype
                assert found[column].tolist() == a.uns["rank_genes_groups"][column].tolist()
    assert sp.issparse(read(tmp_path / "o.zarr").X)
