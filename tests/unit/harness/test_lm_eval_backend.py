"""Names of tasks, groups and tags; what evaluation changes outside; and the count of prompts that are longer than the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from compass_ray.config import ConfigError
from compass_ray.harness.layouts import task_layouts
from compass_ray.harness.results import build_items_table, build_record
from compass_ray.harness.task_files import build_tasks, write_tasks
from compass_ray.models.base_model import BaseModel
from tests.unit.harness.conftest import QUESTIONS

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed; make setup installs it")


def _write_tasks(folder: Path, rows: Path, *definitions: dict[str, Any]) -> None:
    """Tasks ``one`` and ``two`` with the tag ``several`` over the items of a folder, and other definitions."""
    item = {"tag": "several", **build_tasks(task_layouts()["test_set"], "sw", rows)["test_set_sw"]}
    folder.mkdir()
    for number, each in enumerate(({**item, "task": "one"}, {**item, "task": "two"}, *definitions)):
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(each), "utf-8")


@pytest.mark.parametrize(("max_length", "truncated"), [(None, 0), (12, sum(len(options) for _, options, _ in QUESTIONS))])
def test_truncated_options(base: BaseModel, item_folder: Path, tmp_path: Path, max_length: int | None, truncated: int) -> None:
    from compass_ray.harness.lm_eval_backend import HarnessSettings, evaluate_tasks

    tasks = build_tasks(task_layouts()["test_set"], "sw", item_folder)
    write_tasks(tasks, tmp_path)
    assert evaluate_tasks(base, list(tasks), [tmp_path], HarnessSettings(max_length=max_length))["truncated"] == truncated


def test_truncated_prompts_of_generated_replies(base: BaseModel) -> None:
    from compass_ray.harness.lm_eval_backend import HarnessModel, HarnessSettings

    model, prompts = HarnessModel(base, HarnessSettings()), ["yes no", QUESTIONS[0][0]]
    complete, _ = model.tok_batch_encode(prompts)
    length = base.tokenizer(prompts, padding="longest")["input_ids"]
    ids, mask = model.tok_batch_encode(prompts, left_truncate_len=5, truncation=False)
    assert ids.tolist() == complete[:, -5:].tolist()
    assert (len(length[0]), mask.shape, model.num_truncated) == (complete.shape[1], (2, 5), 1)


def test_a_tag_is_its_tasks(item_folder: Path, tmp_path: Path) -> None:
    from compass_ray.harness.lm_eval_backend import expand_tags

    _write_tasks(tmp_path / "tasks", item_folder, {"group": "both", "task": ["one", "two"]})
    found = expand_tags(["several", "one", "both"], [tmp_path / "tasks"])
    assert found == {"several": ("one", "two"), "one": ("one",), "both": ("both",)}


@pytest.mark.parametrize("aggregate", [True, False])
def test_a_group_has_the_results_of_its_tasks(base: BaseModel, item_folder: Path, tmp_path: Path, aggregate: bool) -> None:
    from compass_ray.harness.lm_eval_backend import HarnessSettings, evaluate_tasks

    group = {"group": "both", "task": ["one", {"group": "inner", "task": ["two"]}]}
    means = {"aggregate_metric_list": [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}]}
    _write_tasks(tmp_path / "tasks", item_folder, {**group, **(means if aggregate else {})})
    results = evaluate_tasks(base, ["both"], [tmp_path / "tasks"], HarnessSettings(), tmp_path / "cache")
    record = build_record("both", "both", results, None, {})
    one = record.metrics["one/acc,none"]
    assert (record.metric, record.value) == (("acc,none", one) if aggregate else (None, None))
    assert record.metrics["two/acc,none"] == one
    assert record.items == 2 * len(QUESTIONS)
    assert build_items_table(results["samples"], record.metric).num_rows == record.items


@pytest.mark.slow
def test_unknown_tasks_of_a_group_are_named(item_folder: Path, tmp_path: Path) -> None:
    from compass_ray.harness.lm_eval_backend import open_task_manager

    _write_tasks(tmp_path / "tasks", item_folder, {"group": "both", "task": ["one", "nowhere"]})
    with pytest.raises(ConfigError, match="unknown tasks: nowhere"):
        open_task_manager(["both"], [tmp_path / "tasks"])


@pytest.mark.slow
def test_a_group_may_have_tasks_of_the_harness(item_folder: Path, tmp_path: Path) -> None:
    from compass_ray.harness.lm_eval_backend import open_task_manager

    _write_tasks(
        tmp_path / "tasks", item_folder, {"group": "both", "task": ["one", {"task": "belebele_swh_Latn", "num_fewshot": 5}]}
    )
    assert "belebele_swh_Latn" in open_task_manager(["both"], [tmp_path / "tasks"]).task_index


def test_rows_on_disk_need_no_network(
    base: BaseModel, item_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compass_ray.harness.lm_eval_backend import HarnessSettings, evaluate_tasks

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a connection to {arguments}")

    def settings() -> tuple[object, ...]:
        return datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, datasets.config.HF_DATASETS_CACHE, dict(os.environ)

    asked = list[object]()
    monkeypatch.setattr("socket.getaddrinfo", lambda *arguments, **options: asked.append(arguments) or refuse(*arguments))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    _write_tasks(tmp_path / "tasks", item_folder)
    before = settings()
    results = evaluate_tasks(base, ["one"], [tmp_path / "tasks"], HarnessSettings(), tmp_path / "cache")
    assert results["n-samples"]["one"]["effective"] == len(QUESTIONS)
    assert not asked
    assert settings() == before
    assert any((tmp_path / "cache").iterdir())


def test_importing_the_harness_leaves_the_environment() -> None:
    code = (
        "import os; before = dict(os.environ); import compass_ray.harness.lm_eval_backend; "
        "print(sorted(n for n in os.environ if n.startswith('HF_') and os.environ[n] != before.get(n)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
