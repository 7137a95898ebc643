"""Prompts that are longer than the model are counted, both of log-probabilities and of generated replies."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.harness.layouts import task_layouts
from compass_ray.harness.task_files import build_tasks, write_tasks
from compass_ray.models.base_model import BaseModel
from tests.unit.harness.conftest import QUESTIONS

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed; make setup installs it")


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
