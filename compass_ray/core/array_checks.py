"""Array types of the core, and checks of arguments.

A check returns the argument in the expected type, or raises an error with the given value and the remedy.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def as_counts(values: npt.ArrayLike, name: str) -> IntArray:
    """`values` as int64[K]; ValueError unless one-dimensional, integral and non-negative.

    >>> as_counts([1, 2.0, 0], "n_eval").tolist()
    [1, 2, 0]
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; give one count per cluster, shape (K,).")
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{name} has type {array.dtype}; give whole numbers of rows.")
    integral = array.dtype.kind in "iub" or bool(np.all(np.isfinite(array) & (array == np.floor(array))))
    if not integral or array.min() < 0:
        raise ValueError(f"{name} must be whole numbers of rows, 0 or more; got {array!r}. Count rows by cluster first.")
    return array.astype(np.int64)


def whole_number(value: float, name: str) -> int:
    """`value` as an int, 0 or more; ValueError otherwise.

    >>> whole_number(3.0, "budget")
    3
    """
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iuf" or not np.isfinite(array) or array != np.floor(array) or array < 0:
        raise ValueError(f"{name} is {value!r}; expected a whole number of rows, 0 or more (see budget_rows for a factor).")
    return int(array)


def as_labels(values: npt.ArrayLike, n_clusters: int, name: str = "labels") -> IntArray:
    """`values` as int64[n] cluster labels in -1 .. n_clusters - 1, where -1 is noise; ValueError otherwise.

    >>> as_labels([0, -1, 2], 3).tolist()
    [0, -1, 2]
    """
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}; give one integer cluster per row.")
    if array.min() < -1 or array.max() >= n_clusters:
        raise ValueError(
            f"{name} run from {array.min()} to {array.max()}; expected -1 (noise) to {n_clusters - 1}. "
            "Check that they come from the same clustering."
        )
    return array.astype(np.int64)


def unit_rows(embeddings: npt.ArrayLike, name: str = "embeddings") -> Float32Array:
    """Rows of `embeddings` (n, d) at length 1, float32; ValueError on NaN, infinity or a row of zeros.

    >>> unit_rows([[3.0, 4.0]]).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    rows = np.asarray(embeddings, dtype=np.float32)
    return np.asarray(rows / row_lengths(rows, name)[:, None], dtype=np.float32)


def row_lengths(rows: npt.NDArray[np.floating[Any]], name: str = "embeddings") -> FloatArray:
    """Length float64[n] of each row of (n, d), summed in float64; ValueError on NaN, infinity or a row of zeros.

    >>> row_lengths(np.array([[3.0, 4.0]])).tolist()
    [5.0]
    """
    if rows.ndim != 2:
        raise ValueError(f"{name} has shape {rows.shape}; expected (rows, dimensions).")
    exact = rows.astype(np.float64, copy=False)
    length = np.sqrt(np.vecdot(exact, exact))
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
    if bad.size:
        raise ValueError(
            f"{name}: {bad.size} of {len(rows)} rows are NaN, infinite or all zero, first row {bad[0]}. "
            "Embed these rows again, or leave them out of the pool."
        )
    return np.asarray(length)


def as_scores(values: npt.ArrayLike, n: int, name: str) -> FloatArray:
    """`values` as float64[n]; ValueError unless finite and of length n.

    >>> as_scores([0.5, 1], 2, "proto").tolist()
    [0.5, 1.0]
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"{name} has shape {array.shape}; expected one score for each of {n} rows.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity at row {int(np.flatnonzero(~np.isfinite(array))[0])}; score again.")
    return array


def check_fraction(value: float, name: str) -> float:
    """`value` if it is in [0, 1]; ValueError otherwise.

    >>> check_fraction(0.2, "keep")
    0.2
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value}; expected a fraction from 0 to 1.")
    return float(value)
