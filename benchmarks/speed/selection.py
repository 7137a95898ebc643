"""Row selection for all languages from the artifacts on disk, against a naive implementation.

``select_language`` is the Ray task of the select stage. Here two processes with one thread each run it, so that Ray's start and
memory are excluded. Each starts cold; imports and opening the run count. The naive implementation (``rival``) loads the same
vectors and labels and recomputes all scores of a cluster for each draw, with running neighbour counts. One language is timed;
the others are estimated from their numbers of rows. Neither embedding nor clustering is measured.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.process_memory import PeakMemory
from benchmarks.speed.selection_fixture import (
    GUIDE_PROMPTS,
    LANGUAGES,
    NEAR_DUPLICATES,
    SEED,
    SyntheticPool,
    make_pool,
    write_run,
)
from benchmarks.speed.selection_naive import select_naively
from benchmarks.timing import single_thread
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig, parse_config, with_overrides
from compass_ray.stages.select import select_language

WORKERS = 2
METHOD = "compass"
NO_REPEATS = 2.0
"""Above this budget, candidates run out and rows are repeated."""
RIVAL_LANGUAGE = "sw"


def _processes() -> Executor:
    return ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))


@dataclass(frozen=True)
class Scale:
    """Size of the benchmark: rows of the pools, all with budget 0.8, and budgets of the largest pool.

    The first pool and the first budget are so small that their cost is that of starting and opening the run.
    """

    pools: tuple[int, ...] = (2_000, 51_000, 102_000, 204_000)
    budgets: tuple[float, ...] = (0.0, 0.2, 0.8, 2.0, 10.0)
    dimensions: int = 1_024
    languages: tuple[str, ...] = LANGUAGES
    sample: int = 20_000
    """Rows on which the clusters are fitted."""
    executor: Callable[[], Executor] = _processes


SMALL = Scale((400, 800, 1_600), (0.0, 0.8, 2.0, 10.0), 32, ("sw", "hi"), 800, partial(ThreadPoolExecutor, WORKERS))
"""Uses threads, because starting processes takes longer than the rest."""


@dataclass(frozen=True)
class Selected:
    """One selection of all languages: wall and CPU seconds, rows added, and peak memory of both workers in GiB."""

    seconds: float
    cpu_seconds: float
    rows: int
    private_gib: float
    resident_gib: float

    def numbers(self) -> dict[str, Value]:
        """The numbers of the record."""
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "rows_added": self.rows,
            "peak_private_gib": self.private_gib,
            "peak_with_mapped_pages_gib": self.resident_gib,
        }


def settings_of(scale: Scale) -> RunConfig:
    """The configuration: stochastic sampling, tau 0.9, delta 0.1, and one setting of HDBSCAN."""
    cluster = {"min_cluster_size": [10], "min_samples": [5], "backend": "cpu", "sweep_rows": scale.sample}
    return parse_config({"languages": list(scale.languages), "cluster": cluster, "select": {"budget": 0.8}})


def select_all(run: RunDir, config: RunConfig, scale: Scale) -> Selected:
    """Select for every language with two new workers of one thread each."""
    tree = config.model_dump(mode="json")
    started = time.monotonic()
    with scale.executor() as workers, PeakMemory() as memory:
        jobs = [workers.submit(_task, run.uri, tree, code) for code in config.languages]
        cpu = _total_by_worker([job.result() for job in jobs])
        seconds = time.monotonic() - started
    rows = sum(run.selection(METHOD, code).require().metrics["selected"] for code in config.languages)
    return Selected(seconds, cpu, rows, memory.private / 2**30, memory.resident / 2**30)


def _task(uri: str, tree: Mapping[str, Any], language: str) -> tuple[int, float]:
    """Select for one language; return the worker's process id and its CPU seconds so far."""
    select_language(uri, tree, language, [METHOD])
    return os.getpid(), time.process_time()


def _total_by_worker(samples: Sequence[tuple[int, float]]) -> float:
    return sum(max(seconds for pid, seconds in samples if pid == worker) for worker in {pid for pid, _ in samples})


def by_pool(folder: Path, config: RunConfig, pool: SyntheticPool, scale: Scale) -> dict[int, Selected]:
    """B = 0.8 with pools of several sizes."""
    found = {}
    for n in scale.pools:
        run = RunDir(str(folder / str(n)))
        write_run(run, config, pool, n)
        found[n] = select_all(run, config, scale)
    return found


def by_budget(run: RunDir, config: RunConfig, scale: Scale) -> dict[float, Selected]:
    """One pool with several budgets; above 2, rows are repeated if candidates run out."""
    found = {}
    for budget in scale.budgets:
        overflow = "repeat" if budget > NO_REPEATS else "redistribute"
        found[budget] = select_all(run, with_overrides(config, [f"select.budget={budget}", f"select.overflow={overflow}"]), scale)
    return found


def growth(pools: Mapping[int, Selected], budgets: Mapping[float, Selected]) -> dict[str, Value]:
    """Growth of CPU seconds: a line in rows added, and a power law in pool rows after subtracting the smallest pool.

    Budgets that repeat rows are omitted, because a repeated row is not drawn again.
    """
    rows, cpu = zip(*((each.rows, each.cpu_seconds) for b, each in budgets.items() if b <= NO_REPEATS), strict=True)
    pool = _beyond_first([(float(n), each.cpu_seconds) for n, each in pools.items()])
    return {
        "microseconds_a_row_added": 1e6 * float(np.polyfit(rows, cpu, 1)[0]),
        "r2_of_a_line_in_rows_added": float(np.corrcoef(rows, cpu)[0, 1] ** 2),
        "exponent_in_pool_rows": _slope(pool),
        "exponent_of_n_log_n": _slope([(n, n * math.log(n)) for n, _ in pool]),
    }


def _beyond_first(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points after the first, minus its seconds; at least a millisecond each."""
    (_, start), *later = points
    return [(x, max(seconds - start, 1e-3)) for x, seconds in later]


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Exponent of the power law through points, 0 for a single one."""
    x, y = np.log(points).T
    return float(np.polyfit(x, y, 1)[0]) if len(points) > 1 else 0.0


def rival(run: RunDir, ours: Selected) -> dict[str, Value]:
    """Time the naive implementation for one language, and estimate it for all, in CPU seconds."""
    rows = run.selection(METHOD, RIVAL_LANGUAGE).require().metrics["selected"]
    with single_thread():
        loading, drawing = select_naively(run, METHOD, RIVAL_LANGUAGE)
    once = drawing * ours.rows / max(rows, 1) + loading
    total = once + (len(run.read_config().languages) - 1) * loading
    return {
        "language_rows_added": rows,
        "language_loading_cpu_seconds": loading,
        "language_drawing_cpu_seconds": drawing,
        "all_languages_estimated_cpu_seconds": total,
        "estimated_over_compass": total / ours.cpu_seconds,
        "estimated_over_compass_if_loaded_once": once / ours.cpu_seconds,
    }


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    scale = SMALL if arguments.small else Scale()
    config, folder = settings_of(scale), Path(tempfile.mkdtemp(prefix="compass-ray-"))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    try:
        numbers = measure(folder, config, scale)
    finally:
        shutil.rmtree(folder)
    settings: dict[str, Value] = {
        "dimensions": scale.dimensions,
        "languages": len(scale.languages),
        "workers": WORKERS,
        "guide_prompts": GUIDE_PROMPTS,
        "near_duplicates": NEAR_DUPLICATES,
        **config.select.model_dump(mode="json", include={"budget", "weights", "overflow", "mode", "tau", "delta"}),
    }
    return write_record("speed/selection", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


def measure(folder: Path, config: RunConfig, scale: Scale) -> dict[str, Value]:
    """All numbers of the record."""
    pool = make_pool(config, scale.pools[-1], scale.dimensions)
    pools = by_pool(folder, config, pool, scale)
    largest = RunDir(str(folder / str(scale.pools[-1])))
    plain = rival(largest, pools[scale.pools[-1]])
    budgets = by_budget(largest, config, scale)
    return {
        "clusters": _clusters(pool),
        **{f"pool_{n}": each.numbers() for n, each in pools.items()},
        **{f"budget_{budget}": each.numbers() for budget, each in budgets.items()},
        "growth": growth(pools, budgets),
        "rival": plain,
    }


def _clusters(pool: SyntheticPool) -> dict[str, Value]:
    size = np.bincount(pool.labels[pool.labels >= 0])
    noise = float(np.mean(pool.labels < 0))
    return {"count": len(size), "largest": int(size.max()), "median": float(np.median(size)), "noise_share": noise}


if __name__ == "__main__":
    main()
