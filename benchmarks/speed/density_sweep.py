"""A sweep of 12 HDBSCAN settings, against three single fits and against the `hdbscan` package run 12 times (COMPASS, appendix E).

``three_fits`` is one fit of this project for each min_samples, with its own neighbours and tree: the minimum cost of a sweep
that shares only the tree. ``hdbscan`` fits every setting from scratch; ``hdbscan_memory`` caches trees on disk, starting with
an empty cache. Both only cluster; the sweep also scores every setting with exact validity and selects one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import product

import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.timing import cpu_seconds_of, single_thread
from compass_ray.clustering import hdbscan as density
from compass_ray.clustering.backends import CpuBackend
from compass_ray.clustering.condensed_tree import condense
from compass_ray.clustering.protocol import Float32, Int32, Int64
from compass_ray.config import ClusterConfig

SEED = 0
CONFIG = ClusterConfig(backend="cpu")
NOISE = 0.1
REPEATS = 2


@dataclass(frozen=True)
class Data:
    """Points float32[n, d] and the blob int64[n] of each point, -1 for noise."""

    points: Float32
    truth: Int64


def make_data(n: int, d: int, blobs: int, rng: np.random.Generator) -> Data:
    """Blobs of uneven size and spread, plus uniform noise over their range."""
    truth = rng.choice(blobs, size=n, p=rng.dirichlet(np.full(blobs, 2.0)))
    centres, spread = rng.normal(size=(blobs, d)), rng.uniform(0.2, 0.6, blobs)
    points = centres[truth] + spread[truth, None] * rng.normal(size=(n, d))
    noise = rng.choice(n, size=int(NOISE * n), replace=False)
    points[noise] = rng.uniform(points.min(0), points.max(0), size=(len(noise), d))
    truth[noise] = -1
    return Data(points.astype(np.float32), truth)


def sweep(data: Data) -> list[density.SweepPoint]:
    """All settings by this project."""
    return density.sweep(CONFIG, data.points, CpuBackend())


def three_fits(data: Data) -> list[Int32]:
    """Fit one setting for each min_samples, with nothing shared."""
    backend, found = CpuBackend(), []
    for min_samples in CONFIG.min_samples:
        core = backend.neighbour_distances(data.points, min_samples)[:, -1]
        edges = backend.spanning_tree(data.points, core, min_samples)
        found.append(condense(edges, max(CONFIG.min_cluster_size)).labels)
    return found


def package(data: Data, folder: str | None) -> list[Int32]:
    """All settings by the `hdbscan` package, in the order of the sweep, with its cache in ``folder`` if that is given."""
    import hdbscan

    points, found = data.points.astype(np.float64), []
    for min_samples, size in product(CONFIG.min_samples, CONFIG.min_cluster_size):
        cache = {} if folder is None else {"memory": folder}
        fit = hdbscan.HDBSCAN(min_cluster_size=size, min_samples=min_samples, core_dist_n_jobs=1, **cache).fit(points)
        found.append(np.asarray(fit.labels_, dtype=np.int32))
    return found


def measure(data: Data) -> dict[str, Value]:
    """CPU seconds of each implementation, the ratios, and the agreement of the clusters."""
    cells: list[density.SweepPoint] = []
    theirs: list[Int32] = []
    fits = _best(lambda: three_fits(data))
    ours = _best(lambda: cells.extend(sweep(data)))
    plain = cpu_seconds_of(lambda: theirs.extend(package(data, None)))
    with tempfile.TemporaryDirectory() as folder:
        cached = cpu_seconds_of(lambda: package(data, folder))
    return {
        "compass_seconds": ours,
        "three_fits_seconds": fits,
        "compass_over_three_fits": ours / fits,
        "hdbscan_seconds": plain,
        "hdbscan_memory_seconds": cached,
        "hdbscan_over_compass": plain / ours,
        "hdbscan_memory_over_compass": cached / ours,
        **agreement(data, cells[: len(theirs)], theirs),
    }


def _best(work: Callable[[], object]) -> float:
    return min(cpu_seconds_of(work) for _ in range(REPEATS))


def agreement(data: Data, cells: list[density.SweepPoint], theirs: list[Int32]) -> dict[str, Value]:
    """Agreement of the clusters with the package's for each setting, and of the chosen setting with the blobs."""
    from sklearn.metrics import adjusted_rand_score

    alike = [float(adjusted_rand_score(each, cell.tree.labels)) for cell, each in zip(cells, theirs, strict=True)]
    chosen = density.select_best(cells)
    return {
        "rand_index_with_hdbscan_least": min(alike),
        "rand_index_with_hdbscan_mean": float(np.mean(alike)),
        "chosen_clusters": chosen.tree.n_clusters,
        "chosen_rand_index_with_blobs": float(adjusted_rand_score(data.truth, chosen.tree.labels)),
        "chosen_noise_share": float(np.mean(chosen.tree.labels < 0)),
    }


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    n, d, blobs = (600, 8, 6) if arguments.small else (20_000, 30, 60)
    with single_thread():
        data = make_data(n, d, blobs, np.random.default_rng(SEED))
        numbers = measure(data)
    settings: dict[str, Value] = {
        "rows": n,
        "dimensions": d,
        "blobs": blobs,
        "noise": NOISE,
        "min_cluster_size": CONFIG.min_cluster_size,
        "min_samples": CONFIG.min_samples,
        "hdbscan": metadata.version("hdbscan"),
    }
    return write_record("speed/density_sweep", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
