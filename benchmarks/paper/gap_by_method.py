"""Divergence of the training rows of each method from the guide set, by language, on local copies of the data.

Every method selects from the same pool, clusters and guide prompts. The divergence is computed here from the selected rows,
not read from the method's own record (COMPASS, sections 3.2.2 and 4.3). COMPASS is shown with each of its cluster weights.
Nothing is trained: a lower divergence is the goal of the method, not a measure of a model.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.record import RESULTS, Record, Value, parser, without_run, write_record
from compass_ray.artifacts import RunDir
from compass_ray.config import BiasConfig, ClusterConfig, RunConfig, SelectConfig, load_run_config
from compass_ray.core.array_checks import IntArray
from compass_ray.core.distribution import cluster_counts, js_divergence
from compass_ray.languages import GLOBAL_MMLU
from compass_ray.report.plots import plot_divergences
from compass_ray.report.style import METHOD_STYLES, OTHER_STYLE, MethodStyle, to_png

Counts = dict[str, tuple[IntArray, IntArray]]
"""Numbers of guide prompts and of rows by cluster, int64[K + 1], noise last; by language."""

BEFORE = "before"
_EMBEDDED = ("pool", "guides", "embeddings/guides", "embeddings/pool")
_CLUSTERED = (*_EMBEDDED, "clusters")
WEIGHTS = ("ratio", "deficit", "none")
"""The first is that of the paper; the numbers of rows of the other methods follow it."""
_STYLES = {
    **METHOD_STYLES,
    "COMPASS, ratio": METHOD_STYLES["compass"],
    "COMPASS, deficit": MethodStyle("#0089b3", "*"),
    "COMPASS, none": MethodStyle("#6f8493", "v"),
}


def methods() -> tuple[str, ...]:
    """All selection methods, COMPASS last."""
    named = get_args(get_args(SelectConfig.model_fields["methods"].annotation)[0])
    return (*(name for name in named if name != "compass"), "compass")


def settings(arguments: argparse.Namespace, clusterer: str) -> RunConfig:
    """The configuration: all rows of the local copies, or the small atlas."""
    config = load_run_config("atlas-test" if arguments.small else "aya-local", languages=arguments.languages)
    sources = tuple(source.model_copy(update={"rows_per_language": None}) for source in config.pool.sources)
    pool = config.pool.model_copy(update={"sources": sources, "bias": BiasConfig()})
    cluster = ClusterConfig.model_validate({"method": clusterer, "n_init": 3})
    select = SelectConfig.model_validate({"methods": arguments.methods, "budget": arguments.budget})
    return config.model_copy(update={"pool": pool, "cluster": config.cluster if arguments.small else cluster, "select": select})


def select(config: RunConfig, folder: Path) -> dict[str, RunDir]:
    """Make a run up to its selections for each kind of cluster weights. Later runs reuse artifacts of the first."""
    from compass_ray import pipeline

    runs = {weights: RunDir(str(folder / weights)) for weights in WEIGHTS}
    for weights, run in runs.items():
        names = config.select.methods if weights == WEIGHTS[0] else ("compass",)
        chosen = config.select.model_copy(update={"weights": weights, "methods": names})
        share(runs[WEIGHTS[0]], run, _CLUSTERED)
        pipeline.run_all(config.model_copy(update={"select": chosen}), run, until="select")
    return runs


def share(first: RunDir, run: RunDir, names: Sequence[str]) -> None:
    """Copy artifacts of one run into another, if the last of them is complete and not copied yet."""
    last = names[-1].split("/")
    manifest = first.artifact(*last).manifest()
    if manifest is None or run.artifact(*last).manifest() == manifest:
        return
    for name in names:
        shutil.rmtree(f"{run.path}/{name}", ignore_errors=True)
        shutil.copytree(f"{first.path}/{name}", f"{run.path}/{name}")


def measure(runs: Mapping[str, RunDir], config: RunConfig) -> dict[str, Counts]:
    """Training rows of every method by language and cluster; the language's own rows first."""
    first, codes = runs[WEIGHTS[0]], config.languages
    others: list[str] = [name for name in config.select.methods if name not in ("target", "compass")]
    found = {BEFORE: counts(first, "target", codes)} | {name: counts(first, name, codes) for name in others}
    return found | {f"COMPASS, {weights}": counts(run, "compass", codes) for weights, run in runs.items()}


def counts(run: RunDir, method: str, languages: Sequence[str]) -> Counts:
    """Guide prompts and rows of a method by cluster, for each language."""
    found = {}
    for code in languages:
        made = run.selection("compass", code).read_json("allocation.json")
        guide = np.array([*(each["n_eval"] for each in made["clusters"]), made["noise"]["guide"]])
        rows = run.selection(method, code).read_table("rows.parquet", ["cluster"])["cluster"].to_numpy()
        found[code] = guide, cluster_counts(rows, len(made["clusters"]))
    return found


def divergence(guide: IntArray, rows: IntArray) -> float:
    """Divergence in bits; 1 if one side is empty."""
    return js_divergence(guide, rows) if guide.any() and rows.any() else 1.0


def summary(found: Mapping[str, Counts]) -> dict[str, Value]:
    """Mean divergences, in how many languages each method is lowest and below the rows before, and all divergences."""
    bits = all_divergences(found)
    methods = {name: each for name, each in bits.items() if name != BEFORE}
    before, lowest = bits[BEFORE], {code: min(each[code] for each in methods.values()) for code in bits[BEFORE]}
    inside = {name: {c: divergence(g[:-1], r[:-1]) for c, (g, r) in each.items()} for name, each in found.items()}
    return {
        "mean": {name: _mean(each) for name, each in bits.items()},
        "mean_without_noise": {name: _mean(each) for name, each in inside.items()},
        "lowest_in": {name: sum(each[c] == lowest[c] for c in before) for name, each in methods.items()},
        "below_before_in": {name: sum(each[c] < before[c] for c in before) for name, each in methods.items()},
        "by_language": bits,
    }


def all_divergences(found: Mapping[str, Counts]) -> dict[str, dict[str, float]]:
    """Divergence in bits by method and language; noise is a separate bin."""
    return {name: {code: divergence(*pair) for code, pair in each.items()} for name, each in found.items()}


def _mean(found: Mapping[str, float]) -> float:
    return float(np.mean(list(found.values())))


def _sizes(run: RunDir, found: Counts) -> dict[str, Value]:
    made = run.clusters.require().metrics
    guide = float(np.mean([g[-1] / g.sum() for g, _ in found.values()]))
    return {"clusters": made["clusters"], "noise_share": made["noise_share"], "noise_share_of_guide_prompts": guide}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument(
        "--run", type=Path, default=Path("runs/gap-by-method"), help="folder of the runs, continued if they exist"
    )
    options.add_argument("--languages", nargs="+", help="default: all 42 (two with --small)")
    options.add_argument("--methods", nargs="+", default=methods(), help="default: all; target and compass must be among them")
    known = get_args(ClusterConfig.model_fields["method"].annotation)
    options.add_argument("--clusterers", nargs="+", default=["kmeans", "hdbscan"], choices=known, help="default: kmeans hdbscan")
    options.add_argument("--budget", type=float, default=0.8)
    return options.parse_args(argv)


def _picture(folder: Path, clusterer: str, found: Mapping[str, Counts]) -> None:
    bits = all_divergences(found)
    before = bits.pop(BEFORE)
    folder.mkdir(parents=True, exist_ok=True)
    styles = {name: _STYLES.get(name, OTHER_STYLE) for name in bits}
    drawn = plot_divergences(before, bits, styles, f"Divergence by method, clusters of {clusterer}")
    (folder / f"paper_gap_by_method_{clusterer}.png").write_bytes(to_png(drawn))


def _compare(arguments: argparse.Namespace, kept: Path) -> dict[str, Value]:
    numbers: dict[str, Value] = {}
    pictures = arguments.output or (None if arguments.small else RESULTS)
    first = RunDir(str(kept / arguments.clusterers[0] / WEIGHTS[0]))
    for clusterer in arguments.clusterers:
        config = settings(arguments, clusterer)
        share(first, RunDir(str(kept / clusterer / WEIGHTS[0])), _EMBEDDED)
        runs = select(config, kept / clusterer)
        found = measure(runs, config)
        numbers["pool_rows"] = runs[WEIGHTS[0]].pool.require().metrics["rows"]
        numbers[clusterer] = _sizes(runs[WEIGHTS[0]], found[BEFORE]) | summary(found)
        if pictures is not None:
            _picture(pictures, clusterer, found)
    return numbers


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    from compass_ray import ray_session

    arguments = _arguments(argv)
    if arguments.small:
        arguments.clusterers = ["kmeans"]
    elif not arguments.languages:
        arguments.languages = list(GLOBAL_MMLU)
    config = settings(arguments, arguments.clusterers[0])
    with tempfile.TemporaryDirectory() as scratch, ray_session.session(config.resources):
        numbers = _compare(arguments, Path(scratch) if arguments.small else arguments.run)
    used = {"methods": list(config.select.methods), "languages": len(config.languages), "budget": arguments.budget}
    words = without_run(sys.argv[1:] if argv is None else argv)
    return write_record("paper/gap_by_method", arguments, seeds=[config.seed], settings=used, numbers=numbers, argv=words)


if __name__ == "__main__":
    main()
