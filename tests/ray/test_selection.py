"""A selection depends on its inputs and the seed alone: not on the number of workers, nor on which language comes first."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.speed.selection_fixture import make_pool, write_run
from compass_ray import row_selection
from compass_ray.artifacts import SHARED, Artifact, Identity, RunDir, selection_owners
from compass_ray.config import RunConfig, parse_config, with_overrides
from compass_ray.core.selection import Method
from compass_ray.stages import select

LANGUAGES = ("am", "hi", "sw", "zh")
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    cluster = {"min_cluster_size": [10], "min_samples": [5], "backend": "cpu"}
    methods = ["target", "random", "compass"]
    return parse_config({"languages": LANGUAGES, "cluster": cluster, "select": {"methods": methods, "weights": "deficit"}})


@pytest.fixture(scope="module")
def run(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that stands before the select stage, with every fifth prompt of its pool a test question in fullwidth letters."""
    run = RunDir(str(tmp_path_factory.mktemp("selection") / "run"))
    write_run(run, config, make_pool(config, 1_200, 16), 1_200)
    for code in LANGUAGES:
        _ask_what_the_pool_has(run, code)
    return run


def _ask_what_the_pool_has(run: RunDir, code: str) -> None:
    guide = run.guide(code)
    tables = {file: guide.read_table(file) for file in ("guide.parquet", "test.parquet")}
    test, prompts = tables["test.parquet"], run.pool.read_table("rows.parquet")["prompt"].to_pylist()[::5]
    wide = [text.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789Pp"}) for text in prompts]
    questions = [*wide, *test["question"].to_pylist()[len(wide) :]]
    tables["test.parquet"] = test.set_column(test.schema.get_field_index("question"), "question", pa.array(questions))
    writer = guide.begin(Identity("made", {"name": guide.name}, {}))
    for file, table in tables.items():
        writer.write_table(file, table)
    writer.publish()


@pytest.fixture(scope="module")
def alone(run: RunDir, config: RunConfig) -> Files:
    """What one task after another in this process selects, the last language first."""
    for code in reversed(LANGUAGES):
        select.select_language(run.uri, config.model_dump(mode="json"), code, list(config.select.methods))
    return _selected(run, config)


def _selected(run: RunDir, config: RunConfig) -> Files:
    found = [run.selection(method, code) for method, code in selection_owners(config)]
    return {f"{a.name}/{file}": a.read_bytes(file) for a in found for file in ("rows.parquet", "allocation.json")}


@pytest.mark.parametrize(
    ("workers", "languages"), [(1, "[zh,am,sw,hi]"), (2, "[sw,hi,am,zh]"), (4, "[hi,zh,am,sw]")], ids=["one", "two", "four"]
)
def test_any_number_of_workers_and_order_of_languages_selects_the_same(
    ray_cluster: None, alone: Files, run: RunDir, config: RunConfig, workers: int, languages: str
) -> None:
    """The suite's cluster has four CPUs, so what a task asks for says how many run at once."""
    select.run(with_overrides(config, [f"resources.cpus_per_worker={4 / workers}", f"languages={languages}"]), run, force=True)
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


@pytest.fixture(scope="module")
def every(config: RunConfig) -> RunConfig:
    """The same with every method, for half of the languages."""
    return with_overrides(config, [f"select.methods=[{', '.join(Method)}]", "languages=[sw, zh]"])


def _select_all(uri: str, settings: dict[str, Any], whose: list[str]) -> None:
    """Every method of some languages, one after another in this process."""
    places = selection_owners(RunConfig.model_validate(settings))
    for code in whose:
        select.select_language(uri, settings, code, [method for method, home in places if home == code])


def test_every_method_selects_the_same_in_another_process_and_order_and_no_test_question(run: RunDir, every: RunConfig) -> None:
    settings, whose = every.model_dump(mode="json"), [SHARED, *every.languages]
    _select_all(run.uri, settings, whose)
    first = _selected(run, every)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        fresh.submit(_select_all, run.uri, settings, whose[::-1]).result()
    assert _selected(run, every) == first
    pool = run.pool.read_table("rows.parquet")
    key = dict(zip(pool["row_id"].to_pylist(), row_selection.prompt_keys(pool["prompt"].to_pylist()).tolist(), strict=True))
    tested = {code: set(row_selection.eval_question_keys(run, code).tolist()) & set(key.values()) for code in every.languages}
    for method, home in selection_owners(every):
        rows = run.selection(method, home).read_table("rows.parquet").to_pylist()
        taken = {key[row["row_id"]] for row in rows}
        assert any(row["role"] == "auxiliary" for row in rows) == (method not in ("target", "own_repeated", "all")), method
        for code in every.languages if home == SHARED else (home,):
            assert len(tested[code]) == 240
            assert not tested[code] & taken, (method, code)
