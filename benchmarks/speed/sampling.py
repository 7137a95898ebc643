"""COMPASS-S on one large cluster, against three simple implementations of equation 1 (COMPASS, section 3.2.3).

``recompute`` recomputes every score for each draw, including the similarities with all drawn rows. It takes over an hour for
10,000 draws, so draws spread evenly over the quota are timed and the total is estimated. ``running`` keeps neighbour counts
and adds one product of the cluster with the new row per draw. ``matrix`` computes the complete similarity matrix first. All
draw from the same distribution and read all rows for each draw; the sampler reads fewer. ``running_d`` and ``compass_d`` take
the best row each time (COMPASS-D).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.timing import cpu_seconds_of, single_thread
from compass_ray.core.array_checks import Float32Array, FloatArray
from compass_ray.core.sampling import DELTA, TAU, SamplingMode, sample_cluster

SEED = 0
DRAWS = (500, 2_000, 10_000)
CENTROIDS = 40
NEAR_DUPLICATES = 0.2
"""Share of rows that are near duplicates of another, cosine about 0.95."""
TIMED_DRAWS = 4
REPEATS = 2


@dataclass(frozen=True)
class Cluster:
    """Unit rows float32[n, d], their centroid [d] and the other centroids [m, d], all of length 1."""

    rows: Float32Array
    centroid: Float32Array
    others: Float32Array


def make_cluster(n: int, d: int, rng: np.random.Generator) -> Cluster:
    """A cluster whose rows have a cosine of about 0.6 to each other; some are near duplicates."""
    centres = _unit(rng.normal(size=(CENTROIDS, d)))
    rows = _unit(centres[0] + 0.8 * _unit(rng.normal(size=(n, d))))
    copies = rng.choice(n, size=int(NEAR_DUPLICATES * n), replace=False)
    rows[copies] = _unit(rows[rng.integers(n, size=len(copies))] + 0.3 * _unit(rng.normal(size=(len(copies), d))))
    return Cluster(rows, centres[0], centres[1:])


def _unit(rows: FloatArray | Float32Array) -> Float32Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def scores(cluster: Cluster) -> tuple[FloatArray, FloatArray]:
    """Proto and boundary scores float64[n] of every row, from their definitions."""
    own = 1.0 - cluster.rows @ cluster.centroid
    margin = (1.0 - cluster.rows @ cluster.others.T).min(axis=1) - own
    normal = (margin - margin.min()) / (margin.max() - margin.min())
    return np.asarray(1.0 / (1.0 + own), np.float64), np.asarray(1.0 - normal, np.float64)


class PlainDraws:
    """Draws one row at a time from the scores of all rows by equation 1; ``near`` counts drawn neighbours."""

    def __init__(self, cluster: Cluster, quota: int, rng: np.random.Generator) -> None:
        self.cluster, self.quota, self.rng = cluster, quota, rng
        self.drawn: list[int] = []
        self.near = np.zeros(len(cluster.rows), np.int64)
        self.left = np.ones(len(cluster.rows))
        self.proto, self.boundary = scores(cluster)

    def draw(self) -> int:
        """Draw one row."""
        score = self.scores_left()
        return self.take(int(self.rng.choice(len(score), p=score / score.sum())))

    def best(self) -> int:
        """Draw the best row."""
        return self.take(int(self.scores_left().argmax()))

    def scores_left(self) -> FloatArray:
        """Equation 1 for every row, 0 for drawn rows."""
        late = (len(self.drawn) / self.quota) ** 2
        score = (1.0 - late) * self.proto + late * self.boundary - DELTA * self.near
        score = np.maximum(score, 0.0)
        score *= self.left
        return np.asarray(score)

    def take(self, row: int) -> int:
        """Record a row as drawn."""
        self.drawn.append(row)
        self.left[row] = 0.0
        return row


def recompute(cluster: Cluster, quota: int) -> float:
    """Seconds of a quota if nothing is cached between draws, estimated from draws spread evenly over it."""
    rng = np.random.default_rng(SEED)
    draws = PlainDraws(cluster, quota, rng)

    def one() -> None:
        draws.proto, draws.boundary = scores(cluster)
        draws.near = np.count_nonzero(cluster.rows @ cluster.rows[draws.drawn].T > TAU, axis=1)
        draws.draw()

    taken = []
    for middle in (np.arange(TIMED_DRAWS) + 0.5) / TIMED_DRAWS:
        draws.drawn = rng.choice(len(cluster.rows), size=int(middle * quota), replace=False).tolist()
        taken.append(cpu_seconds_of(one))
    return float(np.mean(taken)) * quota


def running(cluster: Cluster, quota: int) -> None:
    """Draw a quota with running neighbour counts, updated by one product per draw."""
    draws = PlainDraws(cluster, quota, np.random.default_rng(SEED))
    for _ in range(quota):
        draws.near += cluster.rows @ cluster.rows[draws.draw()] > TAU


def running_d(cluster: Cluster, quota: int) -> None:
    """As `running`, but take the best row each time."""
    draws = PlainDraws(cluster, quota, np.random.default_rng(SEED))
    for _ in range(quota):
        draws.near += cluster.rows @ cluster.rows[draws.best()] > TAU


def matrix(cluster: Cluster, quota: int) -> None:
    """Draw a quota with all similarities computed before the first draw."""
    similarity = cluster.rows @ cluster.rows.T
    draws = PlainDraws(cluster, quota, np.random.default_rng(SEED))
    for _ in range(quota):
        draws.near += similarity[draws.draw()] > TAU


def compass(cluster: Cluster, quota: int, mode: SamplingMode = SamplingMode.STOCHASTIC) -> None:
    """Draw a quota with this project's sampler, including the scores."""
    rng = np.random.default_rng(SEED)
    sample_cluster(cluster.rows, cluster.centroid, cluster.others, quota, mode=mode, rng=rng)


def compass_d(cluster: Cluster, quota: int) -> None:
    """As `compass`, but take the best row each time."""
    compass(cluster, quota, SamplingMode.DETERMINISTIC)


def measure(cluster: Cluster, quota: int) -> dict[str, Value]:
    """Seconds of each implementation for one quota, and ratios to the sampler."""
    ours = _best(compass, cluster, quota)
    taken = {"running": _best(running, cluster, quota), "matrix": _best(matrix, cluster, quota)}
    taken["recompute_estimated"] = recompute(cluster, quota)
    return {
        "compass_seconds": ours,
        **{f"{name}_seconds": value for name, value in taken.items()},
        **{f"{name}_over_compass": value / ours for name, value in taken.items()},
        **best_each_time(cluster, quota),
    }


def best_each_time(cluster: Cluster, quota: int) -> dict[str, Value]:
    """The same for COMPASS-D."""
    ours, plain = _best(compass_d, cluster, quota), _best(running_d, cluster, quota)
    return {"compass_d_seconds": ours, "running_d_seconds": plain, "running_d_over_compass_d": plain / ours}


def _best(way: Callable[[Cluster, int], None], cluster: Cluster, quota: int) -> float:
    return min(cpu_seconds_of(lambda: way(cluster, quota)) for _ in range(REPEATS))


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    n, d = (1_000, 32) if arguments.small else (20_000, 256)
    quotas = (50, 100) if arguments.small else DRAWS
    with single_thread():
        cluster = make_cluster(n, d, np.random.default_rng(SEED))
        numbers: dict[str, Value] = {f"{quota}_draws": measure(cluster, quota) for quota in quotas}
    numbers["matrix_gib"] = 4 * n * n / 2**30
    settings: dict[str, Value] = {"rows": n, "dimensions": d, "draws": quotas, "tau": TAU, "delta": DELTA}
    return write_record("speed/sampling", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
