"""Full fine-tuning through Ray: two workers share each model, and it is scored and shown as any other method."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import LanguagesFailedError, RunDir
from compass_ray.config import RunConfig, with_overrides
from compass_ray.report.comparison import compare
from compass_ray.report.explain import read_selection
from compass_ray.report.run_reader import RunReader
from compass_ray.stages import full_finetuning as full_stage
from tests.unit.fakes import record_contents

Copy = Callable[..., RunDir]
_PATIENCE_SECONDS = 300.0


@pytest.fixture
def full(small: RunConfig) -> RunConfig:
    """Each model on two workers, both at once."""
    more = ["resources.full_workers=2", "resources.full_concurrency=2", "resources.max_failures=0"]
    return with_overrides(small, ["select.methods=[target, random, compass, compass_fft]", *more])


@pytest.mark.soak
def test_a_failed_language_is_named_and_every_other_has_a_model_that_is_scored(copy: Copy, full: RunConfig) -> None:
    run = copy("report")
    selection = run.selection("compass", "hi")
    selection.store_table("rows.parquet", selection.read_table("rows.parquet").slice(0, 0))
    record_contents(selection)
    with pytest.raises(LanguagesFailedError, match=r"hi: full fine-tuning: selections/compass/hi has no rows"):
        pipeline.run_all(full, run, until="evaluate")

    made = run.full_model("sw", "compass_fft")
    assert made.verify().inputs == {"selections/compass/sw": run.selection("compass", "sw").require().fingerprint}
    history = RunReader(run).histories("sw")["compass_fft"]
    assert [epoch.epoch for epoch in history.epochs] == [1]
    assert made.read_json("history.json")["workers"] == 2
    assert not any("/" in file for file in made.files())
    scored = run.evaluation("compass_fft", "sw").verify()
    assert scored.inputs[made.name] == made.require().fingerprint
    items = [run.evaluation(name, "sw").read_table("items.parquet") for name in ("zero_shot", "compass", "compass_fft")]
    assert items[0]["item_id"] == items[2]["item_id"]
    assert items[2]["log_probs"] not in (items[0]["log_probs"], items[1]["log_probs"])

    assert run.adapter_versions("sw") == ["random", "target", "v0001"]
    assert read_selection(RunReader(run), "compass_fft", "sw").method == "compass"
    assert compare(run, with_overrides(full, ["languages=[sw]"])).rows[0].difference.keys() == {"target", "random", "compass_fft"}
    stamps = {path: path.stat().st_mtime_ns for path in Path(made.path).iterdir()}
    pipeline.run_all(with_overrides(full, ["languages=[sw]", "resources.full_workers=1"]), run)
    assert {path: path.stat().st_mtime_ns for path in Path(made.path).iterdir()} == stamps
    assert "COMPASS-FFT" in Path(run.report.path, "index.html").read_text()


def _kill_a_worker(once: Path) -> None:
    """SIGKILL to one of the training workers as soon as the file is there."""
    from ray._private.state import actors

    deadline, pause = time.monotonic() + _PATIENCE_SECONDS, threading.Event()
    while not once.exists() and time.monotonic() < deadline:
        pause.wait(0.02)
    found = [actor["Pid"] for actor in actors().values() if "RayTrainWorker" in actor["ActorClassName"]]
    alive = [pid for pid in found if Path(f"/proc/{pid}").exists()]
    os.kill(alive[-1], signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_costs_the_epoch_under_way_and_the_model_is_the_same(copy: Copy, full: RunConfig, tmp_path: Path) -> None:
    run = copy("adapters", "evaluations", "report")
    config = with_overrides(full, ["languages=[sw]", "train.epochs=3", "resources.max_failures=1"])
    straight = RunDir(str(shutil.copytree(run.path, tmp_path / "straight")))
    full_stage.run(config, straight)

    made = run.full_model("sw", "compass_fft")
    killer = threading.Thread(target=_kill_a_worker, args=[Path(made.path, "history.json")])
    killer.start()
    full_stage.run(config, run)
    killer.join()
    expected = straight.full_model("sw", "compass_fft")
    assert len(made.read_json("history.json")["epochs"]) == 3
    assert made.verify().fingerprint == expected.require().fingerprint
    assert made.read_bytes("model.safetensors") == expected.read_bytes("model.safetensors")
    assert made.files() == expected.files()
