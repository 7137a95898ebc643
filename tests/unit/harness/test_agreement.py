"""Our scorer and lm-evaluation-harness give the same log-probabilities and answers, item by item, on the same local task.

The harness moves white space at the end of a prompt into each option. That of a chat template is a constant of the item.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from compass_ray.config import TrainConfig
from compass_ray.harness.layouts import task_layouts
from compass_ray.harness.results import build_items_table
from compass_ray.harness.task_files import build_tasks, write_tasks
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.models.chat_template import render_messages
from compass_ray.models.multiple_choice_prompts import Scoring, format_options
from compass_ray.models.scorer import score_options

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed; make setup installs it")


def _evaluate(base: BaseModel, rows: Path, folder: Path, scoring: Scoring) -> pa.Table:
    from compass_ray.harness.lm_eval_backend import HarnessSettings, evaluate_tasks

    tasks = build_tasks(task_layouts()["test_set"], "sw", rows, scoring)
    folder.mkdir()
    write_tasks(tasks, folder)
    return build_items_table(evaluate_tasks(base, list(tasks), [folder], HarnessSettings())["samples"], "acc,none")


def _check(base: BaseModel, items: pa.Table, evaluated: pa.Table, scoring: Scoring, tolerance: float) -> None:
    questions, options = items["question"].to_pylist(), items["options"].to_pylist()
    ours = score_options(base, questions, options, scoring=scoring, batch_size=4, max_tokens=1024)
    prompts = questions if scoring == "option" else [format_options(*each) for each in zip(questions, options, strict=True)]
    spaces = [_space_log_prob(base, prompt) for prompt in prompts]
    theirs = [list(np.array(each) - space) for each, space in zip(evaluated["log_probs"].to_pylist(), spaces, strict=True)]
    counts = [len(each) for each in options]
    assert [len(each) for each in theirs] == counts
    np.testing.assert_allclose(
        np.concatenate([np.array(each) for each in theirs]),
        np.concatenate([ours.sums[row, :count] for row, count in enumerate(counts)]),
        atol=tolerance,
        rtol=0,
    )
    answers = [int(np.argmax(ours.sums[row, :count])) for row, count in enumerate(counts)]
    assert [int(np.argmax(each)) for each in theirs] == answers
    assert evaluated["value"].to_pylist() == [float(a == b) for a, b in zip(answers, items["answer"].to_pylist(), strict=True)]


@torch.inference_mode()
def _space_log_prob(base: BaseModel, question: str) -> float:
    """Log-probability of the white space at the end of the chat prompt of a question."""
    text = render_messages(base.tokenizer, [{"role": "user", "content": question}])
    ids, start = (base.tokenizer(each, add_special_tokens=False)["input_ids"] for each in (text, text.rstrip()))
    assert ids[: len(start)] == start
    log_probs = base.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return float(sum(log_probs[position - 1, ids[position]] for position in range(len(start), len(ids))))


@pytest.mark.parametrize("scoring", ["option", "letter"])
def test_a_tiny_model(base: BaseModel, items: pa.Table, item_folder: Path, tmp_path: Path, scoring: Scoring) -> None:
    evaluated = _evaluate(base, item_folder, tmp_path / "tasks", scoring)
    _check(base, items, evaluated, scoring, 1e-4)


@pytest.mark.real_models
@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "gemma-3-270m"])
def test_a_real_model(real_models: Path, items: pa.Table, item_folder: Path, tmp_path: Path, name: str) -> None:
    base = load_base(TrainConfig(base_model=str(real_models / name)))
    for scoring in ("option", "letter"):
        evaluated = _evaluate(base, item_folder, tmp_path / scoring, scoring)
        _check(base, items, evaluated, scoring, 2e-3)
