"""The whole analysis as one call, as on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import _cellmill
from ._crew import workers
from ._settings import settings

if TYPE_CHECKING:
    import os


def default_recipe() -> str:
    """The default recipe as TOML.

    Examples
    --------
    >>> import cellmill as cm
    >>> print(cm.default_recipe())  # doctest: +ELLIPSIS
    seed = 0
    ...
    """
    return _cellmill.default_recipe()


def run(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    recipe: str | dict[str, Any] | None = None,
    *,
    through: str = "leiden",
    with_x: str | None = None,
    format: str | None = None,
    overwrite: bool = False,
    in_place: bool = False,
    resume: bool = False,
    genome: str | None = None,
    spill_dir: str | os.PathLike[str] | None = None,
    device: str | None = None,
    client: Any = None,
) -> dict[str, Any]:
    """Analyses a store and writes a new one: the job of ``cellmill run``.

    Parameters
    ----------
    input
        AnnData in zarr or h5ad, or 10x h5: a path or a URL (``s3://``, ``gs://``, ``az://``, ``http://``, ``https://``); or a 10x mtx
        folder or its ``matrix.mtx``.
    output
        The new store; zarr unless its name ends in ``.h5ad``.
    recipe
        TOML text, or a dict of sections; what is left out has its default (:func:`default_recipe`).
    through
        How far to go: ``'qc'``, ``'hvg'``, ``'pca'``, ``'neighbors'``, ``'umap'`` or ``'leiden'``.
    with_x
        Which X the output gets: ``'raw'``, ``'normalized'`` or ``'hvg'``.
    format
        ``'zarr'``, ``'zarr2'`` or ``'h5ad'``; by the output's name without.
    overwrite
        Whether an output that exists is replaced.
    in_place
        Whether results are added to the input (zarr).
    resume
        Whether to go on where an earlier run was stopped.
    genome
        Genome of a 10x h5 file that holds several.
    spill_dir
        Folder for packed rows that memory has no room for.
    device
        ``'cpu'``, ``'auto'``, ``'cuda'``, ``'cuda:N'`` or, for several GPUs, ``'cuda:N,M'``; ``cm.settings.device`` without.
    client
        A ``dask.distributed.Client``, or the address of a scheduler: its workers read the rows, up to the components, and search for
        neighbours, with the same result. ``cm.settings.client`` without.

    Returns
    -------
    What was done: shapes, figures of each stage, the Methods paragraph.

    Examples
    --------
    >>> import cellmill as cm
    >>> summary = cm.run(pbmc3k, tmp / "out.zarr", {"hvg": {"n_top_genes": 500}, "pca": {"n_comps": 20}}, through="pca")
    >>> summary["kept"][1], summary["n_comps"]
    (32738, 20)
    """
    if output is None and not in_place:
        msg = "output: nothing, but run needs one (or in_place=True)"
        raise ValueError(msg)
    text = recipe if isinstance(recipe, str) else _toml(recipe or {})
    request = dict(
        input=input, output=output, format=format, overwrite=overwrite, in_place=in_place, with_x=with_x, through=through, genome=genome,
        spill_dir=spill_dir, resume=resume, device=device or settings.device,
    )  # fmt: skip
    with workers(client) as crew:
        return json.loads(_cellmill.run(request, text, crew))


def _toml(recipe: dict[str, Any]) -> str:
    """Sections of plain values as TOML; JSON's strings, numbers, booleans and lists are TOML's."""
    lines: list[str] = []

    def write(prefix: str, section: dict[str, Any]) -> None:
        inner = {k: v for k, v in section.items() if isinstance(v, dict)}
        lines.extend(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in section.items() if k not in inner and v is not None)
        for name, value in inner.items():
            path = f"{prefix}.{json.dumps(name)}" if prefix else json.dumps(name)
            lines.append(f"[{path}]")
            write(path, value)

    write("", recipe)
    return "\n".join(lines)
