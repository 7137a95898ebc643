"""One complete fit of each clustering method, with its sweep, at the size of a large pool (COMPASS, section 3.2.1).

``sklearn_kmeans`` is one fit of scikit-learn's k-means with the chosen number of clusters, on the same reduced rows, ten
starts; the rest of our time is the sweep. ``pool_scores`` is the next step of the cluster stage, which compares each row with
every centroid. Each method runs in its own process, so that its peak memory is separate.
"""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.timing import cpu_seconds_of, single_thread
from compass_ray.clustering.protocol import FittedClusters, Float32
from compass_ray.config import ClusterConfig

SEED = 0
METHODS = ("hdbscan", "kmeans", "ward", "butina")
TOPIC_DIMENSIONS = 24
DETAIL = 0.5
"""Standard deviation in each dimension, relative to that of the topics."""
_BLOCK = 10_000


@dataclass(frozen=True)
class Shape:
    """Rows, their dimensions, and the topics they are drawn from."""

    rows: int
    dimensions: int
    topics: int


def make_rows(shape: Shape, rng: np.random.Generator) -> Float32:
    """Unit rows float32[n, d] around topics in few dimensions, with sizes by Zipf's law."""
    basis = rng.normal(size=(TOPIC_DIMENSIONS, shape.dimensions)).astype(np.float32) / 5
    size = 1 / np.arange(1, shape.topics + 1) ** 0.9
    topic = rng.choice(shape.topics, size=shape.rows, p=size / size.sum())
    middles = rng.normal(size=(shape.topics, TOPIC_DIMENSIONS)).astype(np.float32)
    rows = np.empty((shape.rows, shape.dimensions), np.float32)
    for start in range(0, shape.rows, _BLOCK):
        part = topic[start : start + _BLOCK]
        made = middles[part] @ basis + DETAIL * rng.standard_normal((len(part), shape.dimensions), np.float32)
        rows[start : start + _BLOCK] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return rows


def measure(method: str, shape: Shape) -> dict[str, Value]:
    """CPU seconds, memory and clusters of one method, in its own process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (method, shape))


def _measure(method: str, shape: Shape) -> dict[str, Value]:
    from compass_ray.clustering import fit_clusters
    from compass_ray.core.instance_scores import pool_scores

    config = ClusterConfig.model_validate({"method": method, "backend": "cpu"})
    with single_thread():
        rows = make_rows(shape, np.random.default_rng(SEED))
        found: list[FittedClusters] = []
        before = _peak_gib()
        taken = cpu_seconds_of(lambda: found.append(fit_clusters(config, rows, seed=SEED)))
        numbers = _found(found[0]) | {"fit_seconds": taken, "rows_gib": rows.nbytes / 2**30}
        numbers |= {"peak_before_fit_gib": before, "peak_gib": _peak_gib()}
        scoring = cpu_seconds_of(lambda: pool_scores(rows, found[0].labels, found[0].clusterer.centroids))
        if method == "kmeans":
            plain = _sklearn(config, rows, len(found[0].coarse))
            numbers |= {"sklearn_kmeans_seconds": plain, "fit_over_sklearn_kmeans": taken / plain}
    return numbers | {"pool_scores_seconds": scoring}


def _found(fitted: FittedClusters) -> dict[str, Value]:
    chosen = next(cell for cell in fitted.sweep if cell.chosen)
    return {
        "clusters": len(fitted.coarse),
        "noise_share": float(np.mean(fitted.labels < 0)),
        "settings_tried": len(fitted.sweep),
        "chosen_score": chosen.score,
        **{f"chosen_{name}": value for name, value in chosen.details.items()},
    }


def _sklearn(config: ClusterConfig, rows: Float32, k: int) -> float:
    from sklearn.cluster import KMeans

    from compass_ray.clustering.centroid_clusterer import prepare_points
    from compass_ray.clustering.pca import fit_pca

    points = prepare_points(fit_pca(rows, config.pca_dims)(rows), "cosine")
    return cpu_seconds_of(lambda: KMeans(k, n_init=config.n_init, random_state=SEED).fit(points))


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    shape = Shape(200, 32, 10) if arguments.small else Shape(200_000, 1_024, 6_000)
    measured = _measure if arguments.small else measure
    numbers: dict[str, Value] = {method: measured(method, shape) for method in METHODS}
    settings: dict[str, Value] = {
        "rows": shape.rows,
        "dimensions": shape.dimensions,
        "topics": shape.topics,
        "topic_dimensions": TOPIC_DIMENSIONS,
        "detail": DETAIL,
        "reduce": ClusterConfig().pca_dims,
    }
    return write_record("speed/clusterers", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
