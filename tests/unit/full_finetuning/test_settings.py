"""Full fine-tuning as it is asked for: DeepSpeed's files, the method's place in a run, and what is refused before any work."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import Identity, RunDir, adapter_owners, selection_owners
from compass_ray.config import ConfigError, RunConfig, load_run_config
from compass_ray.export import export_adapter
from compass_ray.full_finetuning import plan
from compass_ray.models.errors import ModelError
from compass_ray.training.deepspeed_config import read_deepspeed_config, with_run_settings


def asked(*overrides: str, methods: str = "[target, compass, compass_fft]") -> RunConfig:
    return load_run_config("atlas-test", overrides=[f"select.methods={methods}", *overrides])


@pytest.mark.parametrize("stage", [2, 3])
def test_the_packaged_files_shard_at_their_stage_and_leave_the_rest_to_the_run(stage: int) -> None:
    settings = read_deepspeed_config(f"zero{stage}")
    assert settings["zero_optimization"]["stage"] == stage
    whole = with_run_settings(settings, asked("train.batch_size=20", "full.micro_batch=3", "train.dtype=bfloat16"), workers=2)
    # 20 rows in passes of 3 on 2 workers.
    assert (whole["train_micro_batch_size_per_gpu"], whole["gradient_accumulation_steps"]) == (3, 4)
    assert (whole["gradient_clipping"], whole["bf16"]["enabled"]) == (1.0, True)
    assert "optimizer" not in whole


def test_a_file_of_one_s_own_may_leave_what_the_run_says_on_auto(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    own = {
        "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}},
        "train_batch_size": "auto",
        "steps_per_print": 5,
    }
    file.write_text(json.dumps(own))
    assert read_deepspeed_config(str(file)) == {key: own[key] for key in ("zero_optimization", "steps_per_print")}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, r"cannot be read .*; use zero2 or zero3, or the path of a JSON file"),
        ("{", r"is not valid JSON .*; correct the file"),
        ("[]", r"is a list; expected a JSON object"),
        ({"zero_optimization": {"stage": 0}}, r"has zero_optimization.stage 0; expected 1, 2 or 3"),
        ({}, r"has zero_optimization.stage None; expected 1, 2 or 3"),
        ({"optimizer": {"type": "Adam"}}, r"sets 'optimizer'\. compass_ray sets it from full.learning_rate, .*; remove it"),
        ({"gradient_clipping": 2.0}, r"sets 'gradient_clipping'\. compass_ray sets it from train.clip_norm; remove it"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_before_any_work(tmp_path: Path, content: Any, told: str) -> None:
    file, run = tmp_path / "own.json", RunDir(str(tmp_path / "run"))
    if content is not None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=told):
        pipeline.run_all(asked(f"full.deepspeed={file}"), run)
    assert not Path(run.uri).exists()


def test_a_missing_deepspeed_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known, run = importlib.util.find_spec, RunDir(str(tmp_path / "run"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "deepspeed" else known(name, *a))
    with pytest.raises(ModelError, match=r"compass_fft, which needs DeepSpeed, .*DS_BUILD_OPS=0 pip install"):
        pipeline.run_all(asked(), run)
    assert not Path(run.uri).exists()


def test_the_selection_is_that_of_compass_and_there_is_no_adapter(tmp_path: Path) -> None:
    run, config = RunDir(str(tmp_path)), asked("serve.method=target", methods="[target, compass_fft]")
    assert run.selection("compass_fft", "sw").name == "selections/compass/sw"
    assert selection_owners(config) == [("target", "sw"), ("compass", "sw"), ("target", "hi"), ("compass", "hi")]
    assert adapter_owners(config) == [("target", "sw"), ("target", "hi")]
    assert selection_owners(asked()) == selection_owners(config)
    left = {stage.name: [a.name for a in stage.artifacts(config, run)] for stage in pipeline.STAGES}
    assert left["train"] == ["adapters/sw/v0001", "adapters/hi/v0001"]
    assert left["full"] == ["models/sw/compass_fft", "models/hi/compass_fft"]
    assert "evaluations/compass_fft/sw" in left["evaluate"]
    assert "full" not in {status.name for status in pipeline.collect_status(load_run_config("atlas-test"), run)}


def test_it_cannot_be_served_and_is_no_adapter_to_export(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"serve\.method: compass_fft makes one complete model per language, .*; serve compass, or load"
    ):
        asked("serve.method=compass_fft")
    run = RunDir(str(tmp_path / "run"))
    run.write_config(asked())
    with pytest.raises(ConfigError, match=r"no adapter to export: .*models/sw/compass_fft is the complete model"):
        export_adapter(run, "sw", "compass_fft", tmp_path / "out", merged=True)


def test_how_it_is_spread_is_no_part_of_what_the_model_is_made_of(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    run.selection("compass", "sw").begin(Identity("select", {}, {})).publish()
    found = plan(asked(), run, "sw").identity
    spread = ["full.deepspeed=zero2", "full.micro_batch=2", "train.gradient_checkpointing=true", "train.adapter.r=2"]
    assert plan(asked(*spread, "resources.full_workers=3"), run, "sw").identity == found
    for other in ("full.learning_rate=3e-5", "train.epochs=7", "train.max_tokens=9", "seed=4"):
        assert plan(asked(other), run, "sw").identity.fingerprint != found.fingerprint


def test_deepspeed_is_imported_only_where_a_model_is_spread() -> None:
    modules = "compass_ray.stages.full_finetuning, compass_ray.training.deepspeed_model, sys"
    code = f"import {modules}; sys.exit('deepspeed' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
