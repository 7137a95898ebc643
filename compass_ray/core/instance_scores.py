"""Instance scores: how prototypical a row is for its cluster, and how close it is to the boundary of the next cluster.

Scores depend on directions only (dist = 1 - cosine), never on lengths. The paper's printed boundary score is largest far
from the boundary, against its text: `Boundary.NEAR`, the default, reverses it, and `Boundary.AS_PRINTED` keeps it.
COMPASS, section 3.2.3. For the mixture of scores during sampling and the penalty see `sampling`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, as_labels, as_scores, row_lengths, unit_rows

# Equal rows must tie exactly, but BLAS sums a row's products in an order that depends on the row's index. Their scores
# then differ by about 1e-16, which rounding removes; 1e-10 is far below the precision of float32 embeddings.
DECIMALS = 10
BLOCK_ROWS = 1024


class Boundary(StrEnum):
    """Form of the boundary score: largest near the boundary, as the paper's text means, or as printed."""

    NEAR = "near"
    AS_PRINTED = "as_printed"


@dataclass(frozen=True)
class InstanceScores:
    """`proto` float64[n] in [1/3, 1]; `margin_raw` float64[n] in [-2, 2].

    A margin is negative if another centroid is nearer than the row's own.
    """

    proto: FloatArray
    margin_raw: FloatArray


def instance_scores(embeddings: npt.ArrayLike, centroid: npt.ArrayLike, other_centroids: npt.ArrayLike) -> InstanceScores:
    """Scores of rows (n, d) of one cluster, by its centroid (d,) and the other centroids (m, d); m may be 0.

    proto = 1 / (1 + dist to own centroid); margin_raw = dist to the nearest other centroid - dist to own.
    Without another cluster the first term is 0, so the rows farthest from the centroid are the boundary. ValueError on
    NaN and zero rows.

    >>> s = instance_scores([[1.0, 0.0], [0.6, 0.8]], [1.0, 0.0], [[0.0, 1.0]])
    >>> s.proto.round(6).tolist(), s.margin_raw.round(6).tolist()
    ([1.0, 0.714286], [1.0, -0.2])
    """
    rows = np.asarray(embeddings)
    own = unit_rows(np.atleast_2d(np.asarray(centroid)), "centroid")
    others = np.asarray(other_centroids, dtype=np.float32)
    centroids = np.concatenate([own, unit_rows(others, "other_centroids")]) if others.size else own
    labels = np.zeros(len(rows), np.int64)
    return pool_scores(rows, labels, centroids)


def pool_scores(embeddings: npt.ArrayLike, labels: npt.ArrayLike, centroids: npt.ArrayLike) -> InstanceScores:
    """`instance_scores` of every row of a pool (n, d) at once, given labels int[n] and centroids (K, d).

    Rows are read in blocks, so `embeddings` may be memory-mapped. Noise rows (label -1) score 0 in both.

    >>> pool_scores([[1.0, 0.0], [0.0, 1.0]], [0, -1], [[1.0, 0.0], [0.6, 0.8]]).margin_raw.round(6).tolist()
    [0.4, 0.0]
    """
    rows, centres = np.asarray(embeddings), unit_rows(centroids, "centroids").astype(np.float64)
    own = as_labels(labels, len(centres))
    if len(rows) != len(own):
        raise ValueError(f"{len(rows)} embeddings but {len(own)} labels; expected one label per row.")
    proto, margin = np.zeros(len(own)), np.zeros(len(own))
    for block in _blocks(len(own)):
        distance = _distances(rows[block], centres)
        proto[block], margin[block] = _block_scores(distance, own[block])
    return InstanceScores(proto, margin)


def boundary_scores(margin_raw: npt.ArrayLike, *, form: Boundary = Boundary.NEAR) -> FloatArray:
    """Boundary score float64[n] in [0, 1]: one minus the margin, min-max normalised over the given rows.

    Equal margins normalise to 0, like every constant under min-max.

    >>> boundary_scores([1.0, -0.2, 0.4]).round(6).tolist()
    [0.0, 1.0, 0.5]
    >>> boundary_scores([1.0, -0.2, 0.4], form=Boundary.AS_PRINTED).round(6).tolist()
    [1.0, 0.0, 0.5]
    """
    margin = as_scores(margin_raw, np.size(margin_raw), "margin_raw")
    if margin.size == 0:
        return margin
    low, spread = margin.min(), margin.max() - margin.min()
    normal = np.clip((margin - low) / spread, 0.0, 1.0) if spread > 0 else np.zeros(len(margin))
    return np.asarray(1.0 - normal if form is Boundary.NEAR else normal)


def cluster_boundary_scores(
    margin_raw: npt.ArrayLike, labels: npt.ArrayLike, n_clusters: int, *, form: Boundary = Boundary.NEAR
) -> FloatArray:
    """`boundary_scores` within each cluster at once, float64[n]; 0 for noise. `labels` int[n], -1 is noise.

    >>> cluster_boundary_scores([1.0, -0.2, 7.0, 0.4], [0, 0, -1, 0], 1).round(6).tolist()
    [0.0, 1.0, 0.0, 0.5]
    """
    own = as_labels(labels, n_clusters)
    margin = as_scores(margin_raw, len(own), "margin_raw")
    low, high = np.full(n_clusters + 1, np.inf), np.full(n_clusters + 1, -np.inf)
    np.minimum.at(low, own, margin)
    np.maximum.at(high, own, margin)
    spread = (high - low)[own]
    normal = np.divide(margin - low[own], spread, out=np.zeros(len(own)), where=spread > 0)
    score = 1.0 - np.clip(normal, 0.0, 1.0) if form is Boundary.NEAR else np.clip(normal, 0.0, 1.0)
    return np.asarray(np.where(own >= 0, score, 0.0))


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK_ROWS, n)) for start in range(0, n, BLOCK_ROWS))


def _distances(rows: npt.NDArray[np.generic], centres: FloatArray) -> FloatArray:
    """1 - cosine of rows (n, d) to unit centroids (K, d): float64 (n, K) in about [0, 2]."""
    block = np.asarray(rows, dtype=np.float64)
    length = row_lengths(block)
    if block.shape[1] != centres.shape[1]:
        raise ValueError(f"embeddings have {block.shape[1]} dimensions, centroids {centres.shape[1]}; use one encoder.")
    cosine = block @ centres.T
    cosine /= length[:, None]
    return np.subtract(1.0, cosine, out=cosine)


def _block_scores(distance: FloatArray, own: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Proto and raw margin of a block from its distances (n, K); `distance` is overwritten."""
    at = np.arange(len(own)), np.maximum(own, 0)
    near = _tidy(distance[at])
    distance[at] = np.inf
    other = _tidy(distance.min(axis=1)) if distance.shape[1] > 1 else np.zeros(len(own))
    assigned = own >= 0
    return np.where(assigned, 1.0 / (1.0 + near), 0.0), np.where(assigned, other - near, 0.0)


def _tidy(distance: FloatArray) -> FloatArray:
    return np.asarray(np.round(np.clip(distance, 0.0, 2.0), DECIMALS))
