"""Sampling of a cluster's quota: prototypical rows first, boundary rows later, with a penalty on near duplicates.

Rows are drawn one at a time without replacement by the score

    s(x) = (1 - alpha^2) proto(x) + alpha^2 boundary(x) - delta * (drawn neighbours of x),  floored at 0,

where alpha is the share of the quota drawn so far. If every remaining score is 0, that draw has no penalty. COMPASS,
section 3.2.3, equation 1. `stochastic` and `deterministic` draw without scoring every row each time. Candidates, quotas and
repeated rows are in other modules.
"""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import FloatArray, IntArray, as_scores
from compass_ray.core.deterministic import DeterministicSampler
from compass_ray.core.instance_scores import Boundary, boundary_scores, instance_scores
from compass_ray.core.near_duplicates import DrawnNeighbours, EmbeddingReader, NoNeighbours
from compass_ray.core.sampling_state import SampledRows, SamplingState
from compass_ray.core.stochastic import StochasticSampler

TAU = 0.90
DELTA = 0.1


class SamplingMode(StrEnum):
    """How rows are drawn: at random in proportion to the score, the best one each time, or uniformly at random.

    `nearest` takes the rows most similar to a guide prompt, without prototype and boundary scores and without a penalty.
    """

    STOCHASTIC = "stochastic"
    DETERMINISTIC = "deterministic"
    UNIFORM = "uniform"
    NEAREST = "nearest"


def sample_cluster(
    embeddings: npt.ArrayLike,
    centroid: npt.ArrayLike,
    other_centroids: npt.ArrayLike,
    quota: int,
    *,
    tau: float = TAU,
    delta: float = DELTA,
    mode: str | SamplingMode = SamplingMode.STOCHASTIC,
    boundary: Boundary = Boundary.NEAR,
    rng: np.random.Generator,
) -> IntArray:
    """Positions int64[quota] of the rows drawn from one cluster's candidates, in order of drawing.

    `embeddings` (n, d) float32 unit rows, `centroid` (d,), `other_centroids` (m, d) with m possibly 0. Ties
    in deterministic mode go to the earlier row, so give rows in order of row_id. ValueError if the quota is
    above n, or an embedding is NaN.

    >>> rows = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6]], np.float32)
    >>> sample_cluster(rows, [1, 0], [[0, 1]], 2, mode="deterministic", rng=np.random.default_rng(0)).tolist()
    [0, 2]
    """
    rows = np.asarray(embeddings, dtype=np.float32)
    scores = instance_scores(rows, centroid, other_centroids)
    edge = boundary_scores(scores.margin_raw, form=boundary)
    drawn = sample_scored(lambda i: rows[i], scores.proto, edge, quota, tau=tau, delta=delta, mode=mode, rng=rng)
    return drawn.position


def sample_scored(
    rows: EmbeddingReader,
    proto: npt.ArrayLike,
    boundary: npt.ArrayLike,
    quota: int,
    *,
    tau: float = TAU,
    delta: float = DELTA,
    mode: str | SamplingMode = SamplingMode.STOCHASTIC,
    rng: np.random.Generator,
) -> SampledRows:
    """`sample_cluster` from given scores, with the score of each draw; reads only rows that it considers.

    `rows` gives embeddings by position (int64[m] -> (m, d)); `proto` and `boundary` float64[n], 0 or more.

    >>> axes = np.eye(3, dtype=np.float32)
    >>> drawn = sample_scored(lambda i: axes[i], [0.9, 0.5, 0.8], [0, 1, 0], 2, mode="deterministic",
    ...                       rng=np.random.default_rng(0))
    >>> drawn.position.tolist(), drawn.score.round(6).tolist()
    ([0, 1], [0.9, 0.625])
    """
    proto = as_scores(proto, np.size(proto), "proto")
    edge = as_scores(boundary, len(proto), "boundary")
    quota = _check(proto, edge, quota, tau, delta)
    rule = parse_mode(mode)
    if rule is SamplingMode.NEAREST:
        raise ValueError("mode 'nearest' needs guide prompts; take_nearest() draws by similarities from guide_similarity().")
    if rule is SamplingMode.UNIFORM:
        chosen = rng.choice(len(proto), size=quota, replace=False).astype(np.int64)
        return SampledRows(chosen, np.ones(quota), np.zeros(quota, np.int64))
    near = DrawnNeighbours(rows, len(proto), quota, tau) if delta > 0 else NoNeighbours(len(proto))
    state = SamplingState(proto, edge, quota, delta, near)
    sampler = DeterministicSampler(state) if rule is SamplingMode.DETERMINISTIC else StochasticSampler(state, rng)
    while not state.is_done:
        sampler.draw()
    return state.result()


def take_nearest(similarity: npt.ArrayLike, quota: int) -> SampledRows:
    """The `quota` rows with the highest similarity float[n] to a guide prompt, the earlier row first among equals.

    The score of a row is its similarity. ValueError on NaN and on a quota above n.

    >>> taken = take_nearest([0.2, 0.9, 0.9, 0.4], 3)
    >>> taken.position.tolist(), taken.score.tolist()
    ([1, 2, 3], [0.9, 0.9, 0.4])
    """
    scores = as_scores(similarity, np.size(similarity), "similarity")
    if not 0 <= quota <= len(scores):
        raise ValueError(f"quota is {quota} but there are {len(scores)} candidates; expected 0 to {len(scores)}.")
    position = np.argsort(-scores, kind="stable")[:quota].astype(np.int64)
    return SampledRows(position, scores[position], np.zeros(quota, np.int64))


def parse_mode(mode: str | SamplingMode) -> SamplingMode:
    """Parse a mode; ValueError with all modes if it is unknown.

    >>> parse_mode("uniform").name
    'UNIFORM'
    """
    try:
        return SamplingMode(mode)
    except ValueError:
        raise ValueError(f"mode is {mode!r}; choose one of {', '.join(SamplingMode)}.") from None


def _check(proto: FloatArray, boundary: FloatArray, quota: int, tau: float, delta: float) -> int:
    """The quota as an int; ValueError on invalid quota, scores, tau or delta."""
    if not 0 <= quota <= len(proto) or quota != int(quota):
        raise ValueError(
            f"quota is {quota} but the cluster has {len(proto)} candidates; expected a whole "
            f"number from 0 to {len(proto)}. Take quotas from allocate_quotas(); repeat_rows() repeats rows."
        )
    if not -1.0 <= tau <= 1.0 or not (np.isfinite(delta) and delta >= 0.0):
        raise ValueError(f"tau is {tau} and delta {delta}; expected a cosine in [-1, 1] and a penalty of 0 or more.")
    if min(proto.min(initial=0.0), boundary.min(initial=0.0)) < 0.0:
        raise ValueError("proto and boundary scores must be 0 or more; take them from instance_scores().")
    return int(quota)
