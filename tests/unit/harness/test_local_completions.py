"""lm-evaluation-harness against the endpoint (``local-completions``) and in process: the same numbers, item by item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compass_ray.config import with_overrides
from compass_ray.harness.layouts import task_layouts
from compass_ray.harness.planned_tasks import identify, plan
from compass_ray.harness.results import build_items_table
from compass_ray.harness.task_files import build_tasks, write_tasks
from compass_ray.models.model_resolver import resolve_model
from compass_ray.serving.local_endpoint import open_local_endpoint
from compass_ray.stages.harness import HarnessWorker
from tests import former_run

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed; make setup installs it")

ITEMS = 3
MODELS = {"base": "base", "compass": "sw@v0001"}
"""Model of the endpoint by method."""


def _evaluate_endpoint(url: str, model: str, tokenizer: str, folder: Path) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    arguments = {"model": model, "base_url": f"{url}/v1/completions", "tokenizer": tokenizer, "tokenizer_backend": "huggingface"}
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=arguments,
        tasks=["test_set_sw"],
        limit=ITEMS,
        bootstrap_iters=0,
        apply_chat_template=True,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )
    return found


def test_the_endpoint_gives_the_numbers_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = former_run.extract(tmp_path / "former")
    config = with_overrides(run.read_config(), [f"evaluate.harness.limit={ITEMS}", "evaluate.scoring=option"])
    worker, tables = HarnessWorker(run.uri, config.model_dump(mode="json")), {}
    for task in plan(config, run, tasks=["test_set"], methods=list(MODELS), data={}):
        worker.evaluate(task, identify(config, run, task))
        tables[task.method] = run.harness(task.method, "sw", "test_set").read_table("items.parquet")
    with run.guide("sw").local_folder("test.parquet") as rows:
        folder = tmp_path / "tasks"
        folder.mkdir()
        write_tasks(build_tasks(task_layouts()["test_set"], "sw", rows), folder)
        with open_local_endpoint(run, config) as address:
            monkeypatch.setenv("OPENAI_API_KEY", address.key)
            tokenizer = str(resolve_model(config.train.base_model, "base_model"))
            for method, model in MODELS.items():
                found = _evaluate_endpoint(address.url, model, tokenizer, folder)
                served, own = build_items_table(found["samples"], "acc,none"), tables[method]
                for name in ("item", "item_hash", "prompt_hash", "target", "value", "is_greedy"):
                    assert served[name] == own[name], (method, name)
                pairs = zip(served["log_probs"].to_pylist(), own["log_probs"].to_pylist(), strict=True)
                for theirs, ours in pairs:
                    np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=0)
