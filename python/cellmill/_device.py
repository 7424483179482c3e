"""What the engine leaves in the memory of a GPU, as arrays of CuPy: no copy, and the memory is freed with the last of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._cellmill import DeviceArray


def on_cupy(array: DeviceArray) -> Any:
    """An array of CuPy on the same memory."""
    import cupy

    with cupy.cuda.Device(array.device_id):
        return cupy.asarray(array)


def csr_on_cupy(parts: tuple[DeviceArray, DeviceArray, DeviceArray], shape: tuple[int, int]) -> Any:
    """A CSR matrix of CuPy on the same memory; ``parts`` are ``indptr``, ``indices`` and ``data``."""
    import cupy
    import cupyx.scipy.sparse as sparse

    with cupy.cuda.Device(parts[0].device_id):
        indptr, indices, data = map(on_cupy, parts)
        matrix = sparse.csr_matrix((data, indices, indptr), shape=shape)
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix
