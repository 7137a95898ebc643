"""Tasks of lm-evaluation-harness under the base model and the adapters of a complete run, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from compass_ray import ray_session, schemas
from compass_ray.artifacts import FingerprintMismatchError, Identity, LanguagesFailedError, RunDir
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.harness.planned_tasks import HarnessTask, expand_tags, identify, plan
from compass_ray.models.memory_watch import OutOfMemoryError, find_kill
from compass_ray.records.harness import HarnessRecord
from compass_ray.records.memory import WorkerMemoryRecord
from compass_ray.stages.harness import HarnessWorker, run_tasks
from tests import former_run
from tests.in_process_pool import open_pool

METHODS = ("base", "compass")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return former_run.extract(tmp_path_factory.mktemp("former"))


@pytest.fixture(scope="module")
def config(run: RunDir) -> RunConfig:
    return with_overrides(run.read_config(), ["evaluate.harness.limit=3"])


def _plan(config: RunConfig, run: RunDir, methods: Sequence[str] = METHODS, **data: str) -> list[HarnessTask]:
    return plan(config, run, tasks=["test_set"], methods=methods, data=data)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "start", lambda resources: None)
    monkeypatch.setattr(ray_session, "open_actor_pool", open_pool)


def test_base_and_adapter_are_evaluated_and_continued(no_ray: None, config: RunConfig, run: RunDir) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed; make setup installs it")
    wanted, reported = _plan(config, run), list[tuple[str, int, int]]()
    run_tasks(config, run, wanted, progress=lambda *each: reported.append(each))
    artifacts = {each.method: run.harness(each.method, "sw", "test_set") for each in wanted}
    records = {method: HarnessRecord.read(artifact) for method, artifact in artifacts.items()}
    tables = {method: artifact.read_table("items.parquet") for method, artifact in artifacts.items()}
    assert reported == [("eval", 1, 2), ("eval", 2, 2)]
    assert {method: (each.version, each.items, each.metric) for method, each in records.items()} == {
        "base": (None, 3, "acc,none"),
        "compass": ("v0001", 3, "acc,none"),
    }
    assert all(table.schema.equals(schemas.HARNESS_ITEMS) for table in tables.values())
    assert tables["base"]["prompt_hash"] == tables["compass"]["prompt_hash"]
    assert tables["base"]["log_probs"] != tables["compass"]["log_probs"]
    options = run.guide("sw").read_table("test.parquet")["options"].to_pylist()[:3]
    assert records["base"].chance == pytest.approx(sum(1 / len(each) for each in options) / 3)
    assert records["base"].value == pytest.approx(sum(tables["base"]["value"].to_pylist()) / 3)
    files = {each.path for each in artifacts["base"].require().outputs}
    assert {"test_set_sw.yaml", "test.parquet", "items.parquet", "results.json"} <= files
    assert files <= {"test_set_sw.yaml", "test.parquet", "items.parquet", "results.json", "lm_eval.json"}
    run_tasks(config, run, wanted, progress=lambda *each: reported.append(each))
    assert len(reported) == 2
    with pytest.raises(FingerprintMismatchError, match=r"limit.*\. Recompute it with --force$"):
        run_tasks(with_overrides(config, ["evaluate.harness.limit=4"]), run, wanted)


def test_an_adapter_leaves_the_base_as_it_was(config: RunConfig, run: RunDir) -> None:
    pytest.importorskip("lm_eval")
    worker, (base, compass) = HarnessWorker(run.uri, config.model_dump(mode="json")), _plan(config, run)
    found = []
    for task in (base, compass, base):
        worker.evaluate(task, identify(config, run, task))
        found.append(run.harness(task.method, "sw", "test_set").read_table("items.parquet")["log_probs"])
    assert found[0] == found[2] != found[1]


def test_a_failed_task_names_its_language(no_ray: None, config: RunConfig, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def fail(*arguments: object) -> None:
        raise ray.exceptions.RayError("no memory")

    monkeypatch.setattr(HarnessWorker, "evaluate", fail)
    task = plan(config, run, tasks=["another"], methods=["base"], data={})
    with pytest.raises(LanguagesFailedError, match="sw: evaluation: no memory"):
        run_tasks(config, run, task)


def test_a_failed_repetition_is_an_error(no_ray: None, config: RunConfig, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def evaluate(worker: HarnessWorker, task: HarnessTask, identity: Identity) -> HarnessTask:
        if task.task == "fails":
            raise ray.exceptions.RayError("no memory")
        run.harness(task.method, task.language, task.task).begin(identity).publish({})
        return task

    monkeypatch.setattr(HarnessWorker, "evaluate", evaluate)
    wanted = [HarnessTask(task, "base", "sw", None) for task in ("fails", "works")]
    run.harness("base", "sw", "fails").begin(identify(config, run, wanted[0])).publish({})
    run_tasks(config, run, wanted[1:], force=True)
    with pytest.raises(LanguagesFailedError, match="sw: evaluation: no memory"):
        run_tasks(config, run, wanted, force=True)


def test_memory_that_runs_out_is_told_with_settings_of_the_harness(
    config: RunConfig, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    worker, (task,) = HarnessWorker(run.uri, config.model_dump(mode="json")), _plan(config, run, ["base"])
    monkeypatch.setattr(HarnessWorker, "_evaluate", fail)
    with pytest.raises(OutOfMemoryError, match=r"lower evaluate\.batch_tokens \(it was \d+\), or evaluate\.harness\.batch_size"):
        worker.evaluate(task, identify(config, run, task))


def test_a_killed_worker_is_told_and_not_tried_again_in_the_same_way(
    no_ray: None, config: RunConfig, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    config = with_overrides(config, ["evaluate.batch_tokens=800"])
    record = WorkerMemoryRecord(
        at=time.time(), peak_bytes=9, limit_bytes=100, free_bytes=1, setting="evaluate.batch_tokens", tokens=800
    )
    (task,), kills = _plan(config, run, ["base"]), list[str | None]()
    artifact = run.harness(task.method, task.language, task.task)

    def die(worker: HarnessWorker, task: HarnessTask, identity: Identity) -> None:
        kills.append(find_kill(artifact))
        artifact.store_bytes("memory.json", record.model_dump_json().encode())
        with pytest.raises(OutOfMemoryError, match="the system killed the worker for lack of memory"):
            evaluate(worker, task, identity)
        raise ray.exceptions.RayError("The actor was restarted")

    evaluate = HarnessWorker.evaluate
    monkeypatch.setattr(HarnessWorker, "evaluate", die)
    for _ in range(2):  # a new start by the user is another attempt
        with pytest.raises(LanguagesFailedError, match="sw: evaluation: the system killed the worker for lack of memory"):
            run_tasks(config, run, [task], force=True)
    assert kills == [None, None]


def test_methods_versions_and_names_by_language(config: RunConfig, run: RunDir) -> None:
    assert [each.version for each in _plan(config, run, ["base", "compass", "v0002"])] == [None, "v0001", "v0002"]
    with pytest.raises(ConfigError, match=r"no adapter 'v0007' for 'sw'; choose of base, .*v0002"):
        _plan(config, run, ["v0007"])
    (named,) = plan(config, run, tasks=["afrimmlu_{flores}_{language}"], methods=["base"], data={})
    assert named.task == "afrimmlu_swh_Latn_sw"


def test_folders_of_rows(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    def folder(settings: Sequence[str], **data: str) -> str | None:
        chosen = with_overrides(config, settings)
        return plan(chosen, run, tasks=["belebele"], methods=["base"], data=data)[0].folder

    with pytest.raises(ConfigError, match=r"give --data belebele=FOLDER, or set evaluate\.harness\.data"):
        folder([])
    assert folder([f"evaluate.harness.data={tmp_path}"]) == f"{tmp_path}/belebele"
    assert folder([f"evaluate.harness.data={tmp_path}/{{task}}/copy"]) == f"{tmp_path}/belebele/copy"
    assert folder([f"evaluate.harness.data={tmp_path}"], belebele="/rows") == "/rows"


def test_files_of_the_user_are_part_of_the_identity(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    (task,) = plan(config, run, tasks=["mine"], methods=["base"], data={}, include=str(tmp_path))

    def fingerprint() -> str:
        return identify(config, run, task).fingerprint

    found = [fingerprint()]
    for name, text in {"mine.yaml": "task: mine", "_template_yaml": "a: 1", "code.py": "a = 1", "rows.jsonl": "{}"}.items():
        (tmp_path / name).write_text(text, "utf-8")
        found.append(fingerprint())
    assert len(set(found)) == len(found)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/code.pyc").write_bytes(b"\xff\x00")
    assert fingerprint() == found[-1]


def test_the_identity_does_not_depend_on_the_folder(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    found = set()
    for name in ("one", "two"):
        folder = tmp_path / name / "data"
        folder.mkdir(parents=True)
        (folder / "swh_Latn.jsonl").write_text("{}", "utf-8")
        (task,) = plan(config, run, tasks=["belebele"], methods=["base"], data={"belebele": str(folder.parent)})
        found.add(identify(config, run, task).fingerprint)
    assert len(found) == 1


def test_names_are_checked_and_tags_are_their_tasks(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    for name in ("mine", "other"):
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\ntag: several\ndataset_path: json", "utf-8")

    def expand(*names: str) -> list[tuple[str, str | None]]:
        wanted = plan(config, run, tasks=names, methods=["base"], data={}, include=str(tmp_path))
        return [(each.task, each.include) for each in expand_tags(wanted)]

    assert expand("test_set", "mine") == [("test_set", None), ("mine", str(tmp_path))]
    assert expand("other", "several") == [("other", str(tmp_path)), ("mine", str(tmp_path))]
    with pytest.raises(ConfigError, match="unknown tasks: nothing_of_this_name; give names of compass-ray eval --list"):
        expand("mine", "nothing_of_this_name")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": "/nowhere/at/all"}, "--include /nowhere/at/all is not a folder on this machine"),
        ({"data": {"belebelle": "/rows"}}, "tasks that are not evaluated: belebelle"),
    ],
)
def test_folders_are_checked_first(config: RunConfig, run: RunDir, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(config, run, **{"tasks": ["test_set"], "methods": ["base"], "data": {}, **options})


def test_rows_are_looked_for_before_a_model_is_loaded(
    config: RunConfig, run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setattr(ray_session, "start", lambda resources: pytest.fail("Ray was started"))
    wanted = plan(config, run, tasks=["belebele"], methods=["base"], data={"belebele": str(tmp_path / "gone")})
    with pytest.raises(ConfigError, match=r"gone has no rows of Belebele for 'sw': there is no data/swh_Latn\.jsonl"):
        run_tasks(config, run, wanted)
