"""A selection depends on its inputs and the seed alone: not on the number of workers, nor on which language comes first."""

from __future__ import annotations

import pytest

from benchmarks.speed.selection_run import make_world, write_run
from compass_ray.artifacts import Artifact, RunDir
from compass_ray.config import RunConfig, changed, parse
from compass_ray.stages import select

LANGUAGES = ("am", "hi", "sw", "zh")
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    cluster = {"min_cluster_size": [10], "min_samples": [5], "backend": "cpu"}
    methods = ["target", "random", "compass"]
    return parse({"languages": LANGUAGES, "cluster": cluster, "select": {"methods": methods, "weights": "deficit"}})


@pytest.fixture(scope="module")
def run(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that stands before the select stage."""
    run = RunDir(str(tmp_path_factory.mktemp("selection") / "run"))
    write_run(run, config, make_world(config, 1_200, 16), 1_200)
    return run


@pytest.fixture(scope="module")
def alone(run: RunDir, config: RunConfig) -> Files:
    """What one task after another in this process selects, the last language first."""
    for code in reversed(LANGUAGES):
        select.select_language(run.uri, config.model_dump(mode="json"), code, list(config.select.methods))
    return _selected(run, config)


def _selected(run: RunDir, config: RunConfig) -> Files:
    found = [run.selection(method, code) for code in LANGUAGES for method in config.select.methods]
    return {f"{a.name}/{file}": a.read_bytes(file) for a in found for file in ("rows.parquet", "allocation.json")}


@pytest.mark.parametrize(
    ("workers", "languages"), [(1, "[zh,am,sw,hi]"), (2, "[sw,hi,am,zh]"), (4, "[hi,zh,am,sw]")], ids=["one", "two", "four"]
)
def test_any_number_of_workers_and_order_of_languages_selects_the_same(
    ray_cluster: None, alone: Files, run: RunDir, config: RunConfig, workers: int, languages: str
) -> None:
    """The suite's cluster has four CPUs, so what a task asks for says how many run at once."""
    select.run(changed(config, [f"resources.cpus_per_worker={4 / workers}", f"languages={languages}"]), run, force=True)
    assert _selected(run, config) == alone


def test_the_driver_reads_no_rows(
    ray_cluster: None, alone: Files, run: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks return nothing and the driver opens manifests only, so its memory does not grow with the pool."""
    opened: list[str] = []
    for reader in ("read_table", "read_array", "map_table", "map_array"):
        monkeypatch.setattr(Artifact, reader, lambda self, file, *rest: opened.append(file))
    manifests = select.run(config, run, force=True)
    assert not opened
    assert len(manifests) == len(LANGUAGES) * len(config.select.methods)
    assert sum(manifest.metrics["selected"] for manifest in manifests) > 0
