"""Tasks of lm-evaluation-harness under the base model and the adapters of a complete run, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from compass_ray import ray_session, schemas
from compass_ray.artifacts import FingerprintMismatchError, Identity, LanguagesFailedError, RunDir
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.records.harness import HarnessRecord
from compass_ray.stages import harness
from compass_ray.stages.harness import HarnessTask, HarnessWorker, plan, run_tasks
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
        worker.evaluate(task, harness.identify(config, run, task))
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
    run.harness("base", "sw", "fails").begin(harness.identify(config, run, wanted[0])).publish({})
    run_tasks(config, run, wanted[1:], force=True)
    with pytest.raises(LanguagesFailedError, match="sw: evaluation: no memory"):
        run_tasks(config, run, wanted, force=True)


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


def test_task_files_of_the_user_are_part_of_the_identity(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    (task,) = plan(config, run, tasks=["mine"], methods=["base"], data={}, include=str(tmp_path))
    found = []
    for name, text in {"mine.yaml": "task: mine", "code.py": "a = 1", "other.txt": "not read"}.items():
        (tmp_path / name).write_text(text, "utf-8")
        found.append(harness.identify(config, run, task).fingerprint)
    assert found[0] != found[1] == found[2]


def test_names_are_checked_before_a_model_is_loaded(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    (tmp_path / "mine.yaml").write_text("task: mine\ntag: several\ndataset_path: json", "utf-8")

    def check(name: str) -> None:
        harness.check_tasks(plan(config, run, tasks=[name, name], methods=["base"], data={}, include=str(tmp_path)))

    check("mine")
    with pytest.raises(ConfigError, match="tags have no result of their own: several"):
        check("several")
