"""The lazy handle: an AnnData whose X and layers stay in the store, with the steps that are to happen to them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd

from ._cellmill import Matrix
from ._matrix import matrix_of
from ._report import _outside
from ._rows import ROWS, Layers, LazyMatrix, cut, no_layer
from ._write import Written

if TYPE_CHECKING:
    from collections.abc import Sequence


class Raw(anndata.Raw):
    """raw of a handle: its values stay where they are."""

    def obs_vector(self, k: str) -> np.ndarray:
        """The values of a gene: `(n_obs,)`."""
        return _gene(self.X, self.var_names, k)

    def var_vector(self, k: str) -> np.ndarray:
        """The values of a cell: `(n_vars,)`."""
        return _cell(self.X, self.obs_names, k)

    def to_adata(self) -> AnnData:
        """A handle whose X is that of raw."""
        of = self._adata
        return AnnData(
            self.X._cellmill_matrix, of.obs.copy(), self.var.copy(), uns=dict(of.uns), obsm=dict(of.obsm), obsp=dict(of.obsp), varm=dict(self.varm)
        )


class AnnData(Written, anndata.AnnData):
    """An AnnData whose X and layers stay in their store; :func:`cellmill.read_lazy` makes it.

    Verbs of :mod:`cellmill.pp` and :mod:`cellmill.tl` take it as they take an AnnData in memory: steps on values are recorded, results land in
    obs, var, obsm, varm, obsp and uns. Slices are handles of their own, not views.
    """

    _cellmill_x: Matrix

    def __init__(self, matrix: Matrix, obs: pd.DataFrame, var: pd.DataFrame, *, layers: Layers | None = None, **mappings: Any) -> None:
        super().__init__(obs=obs, var=var, **mappings)
        self._cellmill_x = matrix
        self._cellmill_layers = layers or Layers(no_layer, {})
        if matrix.shape != (self.n_obs, self.n_vars):
            msg = f"X: {matrix.shape[0]} x {matrix.shape[1]}, but obs has {self.n_obs} rows and var {self.n_vars}"
            raise ValueError(msg)

    @property
    def raw(self) -> anndata.Raw | None:
        """Values as they were kept before genes were chosen."""
        return self._raw

    @raw.setter
    def raw(self, value: Any) -> None:
        anndata.AnnData.raw.fset(self, value)
        self._raw = _raw_of(self, self)

    @raw.deleter
    def raw(self) -> None:
        self._raw = None

    @property
    def layers(self) -> Layers:
        """The layers, lazily."""
        return self._cellmill_layers._of(self._cellmill_x.shape)

    @layers.setter
    def layers(self, layers: Any) -> None:
        if hasattr(self, "_cellmill_layers"):
            given = Layers(no_layer, {})._of(self._cellmill_x.shape)
            given.update(layers or {})
            self._cellmill_layers = given

    @layers.deleter
    def layers(self) -> None:
        self.layers = {}

    def _frames(self) -> anndata.AnnData:
        """All but the values, in an AnnData that shares them."""
        return anndata.AnnData(obs=self.obs, var=self.var, uns=self.uns, obsm=dict(self.obsm), varm=dict(self.varm), obsp=dict(self.obsp), varp=dict(self.varp))

    def _with(self, frames: anndata.AnnData, matrix: Matrix, layers: Layers, rows: Any = slice(None)) -> AnnData:
        made = AnnData(
            matrix, frames.obs, frames.var, layers=layers, uns=frames.uns, obsm=dict(frames.obsm), varm=dict(frames.varm),
            obsp=dict(frames.obsp), varp=dict(frames.varp),
        )  # fmt: skip
        made._raw = _raw_of(self, made, rows)
        return made

    def __getitem__(self, index: Any) -> AnnData:
        rows, columns = self._normalize_indices(index)
        rows, columns = _one_place(rows, self.n_obs), _one_place(columns, self.n_vars)
        frames = self._frames()[rows, columns].copy()
        return self._with(frames, cut(self._cellmill_x, rows, columns), self._cellmill_layers._part(rows, columns), rows)

    def copy(self, filename: Any = None) -> AnnData:
        """A handle of its own on the same store."""
        return self._with(self._frames().copy(), self._cellmill_x, self._cellmill_layers._copy())

    def _init_as_actual(self, X: Any = None, *args: Any, **kwargs: Any) -> None:
        if isinstance(X, AnnData):
            self._take(X)
        else:
            super()._init_as_actual(X, *args, **kwargs)

    def _take(self, other: AnnData) -> None:
        """Becomes ``other``."""
        super()._init_as_actual(other._frames())
        self._raw = _raw_of(other, self)
        self._cellmill_x, self._cellmill_layers = other._cellmill_x, other._cellmill_layers

    def _inplace_subset_obs(self, index: Any) -> None:
        self._take(self[np.asarray(index)])

    def _inplace_subset_var(self, index: Any) -> None:
        self._take(self[:, np.asarray(index)])

    def _gen_repr(self, n_obs: int, n_vars: int) -> str:
        text = super()._gen_repr(n_obs, n_vars).replace("AnnData object", "Lazy AnnData object", 1)
        steps = _said(self._cellmill_x)
        return text + (f"\n    X: {steps}" if steps else "")

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"

    def __sizeof__(self, **_: Any) -> int:
        """Bytes in memory: all but X and layers."""
        return self._frames().__sizeof__()

    def to_memory(self, copy: bool = False) -> anndata.AnnData:
        """An AnnData in memory: X is CSR float32 (an array if it was centred)."""
        frames = self._frames().copy()
        frames.X = self.X.to_memory()
        for name in self.layers:
            frames.layers[name] = self.layers[name].to_memory()
        frames._raw = _raw_of(self, frames)
        if frames._raw is not None and hasattr(frames._raw.X, "_cellmill_matrix"):
            frames._raw._X = frames._raw.X.to_memory()
        return frames

    def to_df(self, layer: str | None = None) -> pd.DataFrame:
        """The values in memory, as a data frame."""
        return self.to_memory().to_df(layer)

    def transpose(self) -> anndata.AnnData:
        """Genes by cells, in memory."""
        return self.to_memory().transpose()

    T = property(transpose)

    def to_gpu(self) -> anndata.AnnData:
        """An AnnData whose X is a CSR matrix of CuPy on the GPU that ``cellmill.settings.device`` names, as rapids-singlecell takes it; layers too, but
        not raw."""
        frames = self._frames().copy()
        frames.X = self.X.to_gpu()
        for name in self.layers:
            frames.layers[name] = self.layers[name].to_gpu()
        return frames

    def to_dask(self, chunks: int = ROWS) -> anndata.AnnData:
        """An AnnData whose X is a Dask array of blocks of ``chunks`` rows."""
        frames = self._frames().copy()
        frames.X = self.X.to_dask(chunks)
        for name in self.layers:
            frames.layers[name] = self.layers[name].to_dask(chunks)
        return frames

    def _write(self, path: Any, format: str, with_x: bool, options: dict[str, Any]) -> None:
        """With anndata's writers: what the engine has no elements for, and options of theirs."""
        frames = self._frames()
        if format == "h5ad":
            import h5py

            frames.write_h5ad(path, **options)
            if with_x:
                with h5py.File(path, "r+") as file:
                    self._write_values(file, **options)
            return
        import zarr

        frames.write_zarr(path)
        group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
        if with_x:
            self._write_values(group)
        with warnings.catch_warnings():
            # zarr says of version 3 that others may not read consolidated metadata yet; anndata writes them all the same.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(group.store)

    def _write_values(self, group: Any, **options: Any) -> None:
        from anndata.io import sparse_dataset, write_elem

        kept = {k: v for k, v in options.items() if k in ("compression", "compression_opts")}
        layers = group.require_group("layers")
        matrices = [(group, "X", self.X), *((layers, name, self.layers[name]) for name in self.layers)]
        if self.raw is not None:
            # anndata has written that there is none.
            if "raw" in group:
                del group["raw"]
            raw = group.create_group("raw")
            raw.attrs.update({"encoding-type": "raw", "encoding-version": "0.1.0"})
            write_elem(raw, "var", self.raw.var, dataset_kwargs=kept)
            write_elem(raw, "varm", dict(self.raw.varm), dataset_kwargs=kept)
            matrices.append((raw, "X", self.raw.X))
        for group, name, x in matrices:
            if not hasattr(x, "_cellmill_matrix"):
                write_elem(group, name, x, dataset_kwargs=kept)
                continue
            if x._cellmill_matrix.base() is not None:
                write_elem(group, name, x.to_memory(), dataset_kwargs=kept)
                continue
            write_elem(group, name, x._rows(0, min(ROWS, len(x))), dataset_kwargs=kept)
            data = sparse_dataset(group[name])
            for start in range(ROWS, len(x), ROWS):
                data.append(x._rows(start, min(start + ROWS, len(x))))

    def obs_vector(self, k: str, *, layer: str | None = None) -> np.ndarray:
        """A column of obs, or the values of a gene: `(n_obs,)`."""
        if k in self.obs:
            return self.obs[k].values
        if k not in self.var_names:
            msg = f"Could not find key {k} in .var_names or .obs.columns."
            raise KeyError(msg)
        return _gene(self.X if layer is None else self.layers[layer], self.var_names, k)

    def var_vector(self, k: str, *, layer: str | None = None) -> np.ndarray:
        """A column of var, or the values of a cell: `(n_vars,)`."""
        if k in self.var:
            return self.var[k].values
        if k not in self.obs_names:
            msg = f"Could not find key {k} in .obs_names or .var.columns."
            raise KeyError(msg)
        return _cell(self.X if layer is None else self.layers[layer], self.obs_names, k)


def _one_place(index: Any, n: int) -> Any:
    """A slice in place of a number."""
    if not isinstance(index, (int, np.integer)):
        return index
    if not -n <= index < n:
        msg = f"index {index} is out of bounds for an axis of size {n}"
        raise IndexError(msg)
    return slice(index % n, index % n + 1)


def _raw_of(adata: anndata.AnnData, made: anndata.AnnData, rows: Any = slice(None)) -> anndata.Raw | None:
    """raw of some rows of ``adata`` for what was made of them."""
    raw = adata.raw
    if raw is None:
        return None
    return raw_with(made, raw.X[rows], raw.var, dict(raw.varm))


def raw_with(adata: anndata.AnnData, x: Any, var: pd.DataFrame, varm: dict[str, Any]) -> anndata.Raw:
    """raw of these values for ``adata``."""
    return (Raw if isinstance(x, LazyMatrix) else anndata.Raw)(adata, X=x, var=var, varm=varm)


def _gene(x: LazyMatrix, names: pd.Index, name: str) -> np.ndarray:
    """Values of the first gene of that name."""
    return np.ravel(x[:, names == name].to_memory(dense=True)[:, :1])


def _cell(x: LazyMatrix, names: pd.Index, name: str) -> np.ndarray:
    """Values of the first cell of that name."""
    return np.ravel(x[names == name].to_memory(dense=True)[:1])


def _said(matrix: Matrix) -> str:
    """The recorded steps in words."""
    import json

    words = {"NormalizeTotal": "normalize_total", "Log1p": "log1p", "Sqrt": "sqrt", "Scale": "scale"}
    # A step is its name, or its name with what it was given.
    names = (step if isinstance(step, str) else next(iter(step)) for step in json.loads(matrix.recorded()))
    return " → ".join(words[name] for name in names if name in words)


def concat(
    adatas: Sequence[AnnData] | dict[str, AnnData],
    *,
    join: str = "inner",
    label: str | None = None,
    keys: Sequence[str] | None = None,
    index_unique: str | None = None,
    merge: str | None = None,
) -> AnnData:
    """Cells of several handles as one, without reading them.

    Parameters
    ----------
    adatas
        Handles, or a mapping of keys to handles.
    join
        Whether genes of all (``'inner'``) or of any (``'outer'``) are kept.
    label
        Column of obs for the keys.
    keys
        The keys; ``'0'``, ``'1'``, … without.
    index_unique
        What joins a cell's name with its key.
    merge
        What becomes of var: as in ``anndata.concat``.

    Returns
    -------
    A handle over all of them; obs, var, obsm and uns are those of ``anndata.concat``.
    """
    if isinstance(adatas, Mapping):
        keys, adatas = list(adatas), list(adatas.values())
    frames = [a._frames() if isinstance(a, AnnData) else anndata.AnnData(obs=a.obs, var=a.var, uns=a.uns, obsm=dict(a.obsm), varm=dict(a.varm)) for a in adatas]
    joined = anndata.concat(frames, join=join, label=label, keys=keys, index_unique=index_unique, merge=merge)
    places = pd.Index(joined.var_names)
    matrices = [a._cellmill_x if isinstance(a, AnnData) else matrix_of(a.X) for a in adatas]
    columns = [places.get_indexer(a.var_names).astype(np.int64).tolist() for a in frames]
    matrix = Matrix.concat(matrices, columns, len(places))
    names = list(dict.fromkeys(name for a in adatas for name in a.layers))
    if join == "inner":
        names = [name for name in names if all(name in a.layers for a in adatas)]

    def layer(a: Any, name: str) -> Matrix:
        import scipy.sparse as sp

        return matrix_of(a.layers[name] if name in a.layers else sp.csr_matrix(a.shape, dtype=np.float32))

    layers: dict[str, Matrix | None] = {name: Matrix.concat([layer(a, name) for a in adatas], columns, len(places)) for name in names}
    made = AnnData(matrix, joined.obs, joined.var, layers=Layers(no_layer, layers), uns=joined.uns, obsm=dict(joined.obsm), varm=dict(joined.varm))
    raws = [a.raw for a in adatas if a.raw is not None]
    if len(raws) == len(adatas):
        var = anndata.concat([anndata.AnnData(var=raw.var) for raw in raws], join=join, merge=merge).var
        columns = [var.index.get_indexer(raw.var_names).astype(np.int64).tolist() for raw in raws]
        made._raw = raw_with(made, LazyMatrix(Matrix.concat([matrix_of(raw.X) for raw in raws], columns, len(var))), var, {})
    elif raws:
        msg = "Only some AnnData objects have `.raw` attribute, not concatenating `.raw` attributes."
        warnings.warn(msg, UserWarning, stacklevel=_outside())
    return made
