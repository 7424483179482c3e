"""Inputs at a URL: the output is that of the same store on disk, byte for byte, and what is wrong is said in a sentence."""

import json
import shutil

import numpy as np
import pytest
from zarr.codecs import TransposeCodec

import inputs
import program
import servers
from program import cellmill, files, message, succeed

ANALYSIS = ["--n-top-genes", "200", "--n-comps", "12", "--through", "pca", "--threads", "2"]


@pytest.fixture(scope="module")
def stores(mixed, tmp_path_factory):
    """One data set in every layout that is read."""
    folder = tmp_path_factory.mktemp("stores")
    inputs.put_sparse(inputs.write(mixed, folder / "three.zarr"), mixed.X, how={"chunks": (20_000,)})
    inputs.write(mixed, folder / "two.v2.zarr")
    inputs.write(mixed, folder / "file.h5ad")
    sharded = inputs.write(mixed, folder / "sharded.zarr")
    inputs.put_sparse(sharded, mixed.X, how={"chunks": (1000,), "shards": (20_000,)})
    foreign = inputs.write(mixed, folder / "foreign.zarr")
    # A codec that another library decodes.
    inputs.put_dense(foreign, mixed.X, "f4", how={"chunks": (200, 900), "filters": [TransposeCodec(order=(1, 0))]})
    shutil.copytree(folder / "three.zarr", folder / "plain.zarr")
    inputs.unconsolidate(folder / "plain.zarr")
    shutil.copytree(folder / "two.v2.zarr", folder / "plain.v2.zarr")
    inputs.unconsolidate(folder / "plain.v2.zarr")
    dense = mixed.copy()
    dense.X = dense.X.toarray()
    inputs.write(dense, folder / "dense.zarr")
    return folder


CONSOLIDATED = ["three.zarr", "two.v2.zarr", "sharded.zarr", "foreign.zarr", "dense.zarr", "file.h5ad"]


@pytest.fixture(scope="module")
def here(stores, tmp_path_factory):
    """What runs leave of the stores on disk."""
    folder, made = tmp_path_factory.mktemp("here"), {}

    def run(name):
        if name not in made:
            succeed("run", stores / name, "-o", folder / f"{name}.out.zarr", *ANALYSIS)
            made[name] = files(folder / f"{name}.out.zarr")
        return made[name]

    return run


@pytest.fixture
def web(stores):
    with servers.Web(stores) as web:
        yield web


@pytest.fixture(scope="module")
def bucket(stores):
    with servers.Bucket() as bucket:
        for name in [*CONSOLIDATED, "plain.zarr", "plain.v2.zarr"]:
            bucket.put(stores / name, f"atlas/of all cells/{name}")
        yield bucket


@pytest.mark.parametrize("name", CONSOLIDATED)
def test_the_web(web, here, tmp_path, name):
    succeed("run", f"{web.url}/{name}", "-o", tmp_path / "out.zarr", *ANALYSIS)
    assert files(tmp_path / "out.zarr") == here(name)


def test_a_server_that_gives_whole_files_alone(web, here, tmp_path):
    """As ``python -m http.server`` does: enough for chunks that are files."""
    web.ranges = False
    succeed("run", f"{web.url}/two.v2.zarr", "-o", tmp_path / "out.zarr", *ANALYSIS)
    assert files(tmp_path / "out.zarr") == here("two.v2.zarr")


@pytest.mark.parametrize("name", [*CONSOLIDATED, "plain.zarr", "plain.v2.zarr"])
def test_a_bucket(bucket, here, tmp_path, name):
    succeed("run", f"s3://cells/atlas/of all cells/{name}", "-o", tmp_path / "out.zarr", *ANALYSIS, env=bucket.env)
    assert files(tmp_path / "out.zarr") == here(name)


@pytest.mark.parametrize(
    ("scheme", "env"),
    [
        ("gs", {"GOOGLE_BASE_URL": "{url}", "GOOGLE_SKIP_SIGNATURE": "true"}),
        ("az", {"AZURE_STORAGE_ACCOUNT_NAME": "cells", "AZURE_ENDPOINT": "{url}", "AZURE_SKIP_SIGNATURE": "true", "AZURE_ALLOW_HTTP": "true"}),
    ],
)
def test_other_storage(stores, here, tmp_path, scheme, env):
    """Google's and Azure's: reading is a web server's GET with their addresses and credentials, so one plays them here."""
    with servers.Web(stores.parent) as web:
        env = {key: value.format(url=web.url) for key, value in env.items()}
        succeed("run", f"{scheme}://{stores.name}/three.zarr", "-o", tmp_path / "out.zarr", *ANALYSIS, env=env)
    assert files(tmp_path / "out.zarr") == here("three.zarr")


def test_other_commands(web, stores, tmp_path):
    """info, plan, convert, markers and aggregate read from a URL what they read from disk."""
    for name in ("three.zarr", "file.h5ad"):
        near, far = (succeed("info", at, "--json").json() for at in (stores / name, f"{web.url}/{name}"))
        assert far.pop("store") == f"{web.url}/{name}"
        near.pop("store")
        # Of many chunks the size is estimated from some.
        for a, b in zip(near["matrices"], far["matrices"], strict=True):
            assert np.isclose(a.pop("stored_bytes"), b.pop("stored_bytes"), rtol=0.3)
        near.pop("run"), far.pop("run")
        assert far == near
    assert succeed("plan", f"{web.url}/three.zarr", "--json").json()["reads"]
    commands = {
        "convert": [],
        "markers": ["--groupby", "categorical", "--no-log1p", "--target-sum", "none"],
        "aggregate": ["--by", "categorical", "--func", "sum"],
    }
    for command, options in commands.items():
        (tmp_path / command).mkdir()
        for at, output in ((stores / "two.v2.zarr", "near.zarr"), (f"{web.url}/two.v2.zarr", "far.zarr")):
            to = [] if command == "convert" else ["-o"]
            succeed(command, at, *to, tmp_path / command / output, *options)
        assert files(tmp_path / command / "far.zarr") == files(tmp_path / command / "near.zarr")


def test_few_requests_and_many_at_once(web, mixed, stores, tmp_path):
    """Opening takes a few requests, each chunk one, neighbours in a shard are fetched together, and no thread waits for one after another."""
    web.latency = 0.02
    succeed("run", f"{web.url}/three.zarr", "-o", tmp_path / "a.zarr", *ANALYSIS, "--through", "qc")
    meta = json.loads((stores / "three.zarr" / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    documents = [name for _, name, _ in web.asked if name.endswith(("zarr.json", ".zmetadata", ".zgroup", ".zarray", ".zattrs"))]
    assert 1 <= len(documents) <= 8 < len(meta), "metadata are read at once"
    # One byte is asked for to know an object again.
    read = lambda: [(name, span) for command, name, span in web.asked if command == "GET" and "/X/data/c/" in name and span != "bytes=0-0"]
    chunks = read()
    assert len(chunks) == len(set(chunks)), "each chunk is fetched once"
    assert web.most >= 8
    web.asked.clear()
    succeed("run", f"{web.url}/sharded.zarr", "-o", tmp_path / "b.zarr", *ANALYSIS, "--through", "qc")
    shards = read()
    assert len(shards) == len(set(shards))
    assert len(shards) < mixed.X.nnz / 1000 / 3, "neighbours in a shard are fetched together"


def test_what_is_wrong_is_said(web, bucket, stores, tmp_path):
    out = tmp_path / "out.zarr"

    def said(at, *options, **how):
        done = cellmill("run", at, "-o", options[0] if options else out, *ANALYSIS, "-y", *options[1:], **how)
        assert not out.exists()
        done.err = "".join(line for line in done.err.splitlines(keepends=True) if "go on with --resume" not in line)
        return message(done)

    assert f"{web.url}/nothing.zarr: 404: there is no such object" in said(f"{web.url}/nothing.zarr")
    assert "s3://cells/nothing.h5ad: 404" in said("s3://cells/nothing.h5ad", env=bucket.env)
    assert "without consolidated metadata" in said(f"{web.url}/plain.zarr")
    assert "an address of the kind 'ftp', but s3, gs, az, http and https can be read" in said("ftp://host/a.zarr")
    assert "no connection to the server" in said("http://127.0.0.1:9/a.zarr")
    web.refuse["three.zarr/X/indices/c/0"] = 403
    line = said(f"{web.url}/three.zarr")
    assert f"{web.url}/three.zarr: X/indices, rows 0.." in line
    assert "403: access is refused" in line
    wrong = {**bucket.env, "AWS_ENDPOINT_URL": web.url}
    web.refuse["cells/a.h5ad"] = 403
    assert "AWS_ACCESS_KEY_ID" in said("s3://cells/a.h5ad", env=wrong)
    web.ranges = False
    assert "all of it, but parts are needed" in said(f"{web.url}/file.h5ad")
    web.ranges = True
    (stores / "text.h5ad").write_text("not a store")
    assert "not an HDF5 file" in said(f"{web.url}/text.h5ad")
    assert "s3://cells/out.zarr, but results are written to a folder" in said(stores / "three.zarr", "s3://cells/out.zarr")
    line = message(cellmill("run", f"{web.url}/three.zarr", "--in-place", *ANALYSIS))
    assert "a store at a URL is only read" in line


def test_a_lost_chunk_and_a_cut_shard(stores, tmp_path):
    """What is damaged is told from what can't be reached."""
    shutil.copytree(stores / "sharded.zarr", tmp_path / "cut.zarr")
    shard = tmp_path / "cut.zarr" / "X" / "data" / "c" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[-500:])
    with servers.Web(tmp_path) as web:
        near, far = (message(cellmill("run", at, "-o", tmp_path / "out.zarr", *ANALYSIS)) for at in (tmp_path / "cut.zarr", f"{web.url}/cut.zarr"))
    assert "a shard of 500 bytes" in near
    assert far.split(": X/data", 1)[1] == near.split(": X/data", 1)[1]


def test_a_run_goes_on_if_the_input_is_the_same(web, here, stores, tmp_path):
    """After the server was out of reach; a store that has changed meanwhile is refused."""
    out, run = tmp_path / "out.zarr", lambda *more: cellmill("run", f"{web.url}/three.zarr", "-o", tmp_path / "out.zarr", *ANALYSIS, *more)
    last = max((stores / "three.zarr" / "X" / "data" / "c").iterdir(), key=lambda p: int(p.name)).name
    web.refuse[f"three.zarr/X/data/c/{last}"] = 403
    assert "--resume" in run().err
    web.refuse.clear()
    kept = program.listing(f"{out}.journal")
    assert kept
    document = stores / "three.zarr" / "zarr.json"
    text = document.read_text()
    document.write_text(text + "\n")
    assert "sizes and ETags of its objects" in message(run("--resume"))
    document.write_text(text)
    # The time is part of what tells versions, so the document that was put back is another one.
    assert "sizes and ETags of its objects" in message(run("--resume"))
    assert run("-y").code == 0
    assert files(out) == here("three.zarr")
