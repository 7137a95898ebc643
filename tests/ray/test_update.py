"""Updates: every strategy on equal budgets, a bad one rejected, several at once, one at a time, and killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from compass_ray import demo_traffic, registry
from compass_ray.artifacts import Artifact, ArtifactError, RunDir
from compass_ray.clustering.versions import TrainedRows
from compass_ray.config import RunConfig, with_overrides
from compass_ray.continual import update as updates
from compass_ray.continual.update.lock import language_lock
from compass_ray.continual.update.selection import publish_selection
from compass_ray.continual.update.spec import UpdateSpec
from compass_ray.continual.update.worker import make_version
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.stages.train.train_jobs import Job, plan
from compass_ray.training.adapter_job import train_adapter
from tests.ray.commands import command_of, environment, kill_when, wait_until
from tests.unit.fakes import record_contents

Copy = Callable[..., RunDir]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(small: RunConfig) -> BaseModel:
    torch.set_num_threads(small.resources.threads_per_worker)
    return load_base(small.train)


def _prompts(run: RunDir, config: RunConfig, language: str) -> Path:
    """A file of prompts about subjects that the guide set leaves out."""
    stream = demo_traffic.draw_demo_traffic(config, run, language, usual=1, shifted=60, new_share=0.9)
    file = Path(run.path, f"{language}.jsonl")
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in stream.shifted), "utf-8")
    return file


def _window(run: RunDir, config: RunConfig, language: str = "sw") -> updates.Window:
    return updates.read_window(run, config, language, _prompts(run, config, language))


def _made(config: RunConfig, run: RunDir, window: updates.Window, base: BaseModel, version: str = "v0002") -> UpdateSpec:
    """An update whose training and gate run in this process."""
    update = UpdateSpec(window.language, "v0001", version, window.name)
    publish_selection(config, run, window, update)
    make_version(config, run, update, base)
    return update


def _ids(selection: Artifact, role: str) -> list[str]:
    rows = selection.read_table("rows.parquet")
    return list(rows.filter(pc.equal(rows["role"], role))["row_id"].to_pylist())


@pytest.mark.slow
def test_every_strategy_adds_as_many_rows_and_none_that_is_held_out(copy: Copy, small: RunConfig, base: BaseModel) -> None:
    run = copy()
    registry.promote_first_versions(small, run)
    window, first = _window(run, small), run.selection("compass", "sw")
    before = TrainedRows.read(small, [first])
    held = {row for row, out in zip(before.row_ids, before.held_out, strict=True) if out}
    anchors = run.adapter("sw", "v0001").read_table("anchors.parquet").num_rows
    looked_back_at = {
        "naive": (0, 0),
        "ewc": (0, len(before.row_ids) - len(held)),
        "random_rehearsal": (anchors, 0),
        "ecda": (anchors, anchors),
        "ecda, otherwise": (anchors, len(held)),
        "full": (None, None),
    }
    otherwise = ["replay=drawn", "replay_target=previous", "fisher_rows=held_out", "fisher_kind=sampled", "fisher_scale=trace"]
    added, own, weights = {}, {}, set()
    for number, (name, looked) in enumerate(looked_back_at.items(), start=2):
        strategy, _, changed = name.partition(", ")
        settings = [f"update.strategy={strategy}", *(f"update.{each}" for each in otherwise if changed)]
        update = _made(with_overrides(small, settings), run, window, base, f"v{number:04d}")
        selection, adapter = run.selection(update.version, "sw"), run.adapter("sw", update.version)
        added[name], own[name] = _ids(selection, "auxiliary"), _ids(selection, "target")
        assert not held & {*added[name], *own[name]}
        history = adapter.read_json("history.json")
        assert (history["strategy"], history.get("rehearsed"), history.get("fisher_rows")) == (strategy, *looked)
        assert history["rows"] == len(added[name]) + len(own[name])
        assert min(history["seconds"], history["tokens"]) > 0
        assert 0 < run.update("sw", update.version).read_json("gate.json")["retained_rows"] <= len(held)
        weights.add(adapter.read_bytes(WEIGHTS))
    assert len(weights) == 6
    more, kept = added.pop("full"), own.pop("full")
    assert len({len(rows) for rows in added.values()}) == 1
    assert list(own.values()) == [[]] * 5
    assert len(more) == len(added["ecda"]) + len(_ids(first, "auxiliary"))
    assert kept == [row for row in _ids(first, "target") if row not in held]


def test_without_beta_and_lambda_ecda_is_naive(copy: Copy, small: RunConfig, base: BaseModel) -> None:
    run = copy()
    registry.promote_first_versions(small, run)
    window, found = _window(run, small), []
    for strategy in ("naive", "ecda"):
        _made(with_overrides(small, [f"update.strategy={strategy}", "update.beta=0", "update.ewc_lambda=0"]), run, window, base)
        found.append(run.adapter("sw", "v0002").read_bytes(WEIGHTS))
    assert found[0] == found[1]


def test_shuffled_labels_are_rejected_and_the_same_rows_unshuffled_are_accepted(
    copy: Copy, small: RunConfig, base: BaseModel
) -> None:
    """Wrong labels are wrong in the held-out slice too, where learning them looks like a gain; what was known tells."""
    run = copy("adapters")
    config = with_overrides(small, ["train.epochs=8", "train.holdout=0.1", "update.epochs=3", "update.learning_rate=1e-3"])
    run.write_config(config)
    first = plan(config, run, Job("sw", "compass", "v0001"))
    first.artifact.begin(first.identity)
    train_adapter(config, run, first, base)
    registry.promote(run, "sw", "v0001")
    window = _window(run, config)
    sane = _made(config, run, window, base)
    gate = run.update("sw", sane.version).read_json("gate.json")
    assert gate["accepted"], gate["reason"]

    _shuffle_responses(run, _ids(run.selection("v0002", "sw"), "auxiliary"))
    run.adapter("sw", "v0002").remove()
    _made(config, run, window, base)
    gate = run.update("sw", "v0002").read_json("gate.json")
    assert gate["reason"].startswith("rejected, forgets more than 0.1 nats on retained"), gate["reason"]
    outcome = updates.run_update(config, run, window)
    assert not outcome.accepted
    [entry] = [entry for entry in registry.list_versions(run, ["sw"]) if entry.name.version == "v0002"]
    assert (entry.live, entry.gate["accepted"]) == (False, False)
    assert (run.live("sw") or {})["version"] == "v0001"


def _shuffle_responses(run: RunDir, row_ids: list[str]) -> None:
    pool = run.pool.read_table("rows.parquet")
    mine = np.flatnonzero(pc.is_in(pool["row_id"], pa.array(row_ids)).to_numpy(zero_copy_only=False))
    responses = np.array(pool["response"].to_pylist(), dtype=object)
    responses[mine] = responses[np.random.default_rng(0).permutation(mine)]
    changed_ = pool.set_column(pool.column_names.index("response"), pool.schema.field("response"), pa.array(responses.tolist()))
    run.pool.store_table("rows.parquet", changed_)
    record_contents(run.pool)


@pytest.mark.slow
def test_of_several_updates_one_that_fails_stops_no_other(copy: Copy, small: RunConfig) -> None:
    run = copy()
    registry.promote_first_versions(small, run)
    windows = [_window(run, small, language) for language in ("hi", "sw")]
    broken = run.selection("compass", "hi")
    broken.store_bytes("rows.parquet", broken.read_bytes("rows.parquet")[:100])
    calls: list[tuple[int, int]] = []
    made = updates.run_updates(small, run, windows, progress=lambda _, done, total: calls.append((done, total)))
    assert [outcome.language for outcome in made.outcomes] == ["sw"]
    assert made.failures.keys() == {"hi"}
    assert calls[-1] == (2, 2)
    assert made.outcomes[0] == updates.run_update(small, run, windows[1])
    assert (run.live("sw") or {})["version"] == ("v0002" if made.outcomes[0].accepted else "v0001")
    assert (run.live("hi") or {})["version"] == "v0001"


@pytest.mark.slow
def test_a_language_is_updated_by_one_at_a_time(ray_cluster: None, tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "run"))
    held = pytest.raises(updates.UpdateLockedError, match=rf"Another update of sw is running \(process {os.getpid()} on ")
    with language_lock(run, "sw"):
        with held, language_lock(run, "sw"):
            pass
        with language_lock(run, "hi"):
            pass
    with language_lock(run, "sw"):
        pass


@pytest.mark.slow
def test_who_dies_holds_no_language(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    run = RunDir(str(tmp_path / "run"))
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(ray.remote(_held_until_death).options(num_cpus=0, max_retries=0).remote(run.uri))
    wait_until(lambda: _is_free(run, "sw"), "the language to be free")


def _held_until_death(uri: str) -> None:
    """Ray task: it holds a language, and is killed."""
    with language_lock(RunDir(uri), "sw"):
        os.kill(os.getpid(), signal.SIGKILL)


def _is_free(run: RunDir, language: str) -> bool:
    try:
        with language_lock(run, language):
            return True
    except updates.UpdateLockedError:
        return False


def _trains(run: RunDir) -> bool:
    return run.adapter("sw", "v0002").exists("state.pt")


@pytest.mark.parametrize(
    "killed", [pytest.param("driver", marks=pytest.mark.slow), pytest.param("worker", marks=pytest.mark.soak)]
)
def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_adapter(
    copy: Copy, small: RunConfig, base: BaseModel, killed: str
) -> None:
    run, config = copy(), with_overrides(small, ["update.epochs=6"])
    registry.promote_first_versions(small, run)
    prompts = _prompts(run, small, "sw")
    words = ("update", run.path, "--language", "sw", "--prompts", str(prompts), "--yes", "--set", "update.epochs=6")
    window = updates.read_window(run, config, "sw", prompts)
    new = run.adapter("sw", "v0002")
    if killed == "driver":
        kill_when(lambda: _trains(run), command_of(*words))
        begun = new.read_in_progress_marker()
        wait_until(lambda: _is_free(run, "sw"), "the killed driver's hold to end")
        assert _trains(run)
        outcome = updates.run_update(config, run, window)
    else:
        begun = _finished_without_a_worker(run, command_of(*words))
        outcome = updates.run_update(config, run, window)
    assert begun is not None
    assert (outcome.to_version, new.verify().provenance["started"]) == ("v0002", begun.started)
    ended = new.read_bytes(WEIGHTS)
    new.remove()
    _made(config, run, window, base)
    assert new.read_bytes(WEIGHTS) == ended


def _finished_without_a_worker(run: RunDir, command: list[str]) -> object:
    """Run the command, kill its first training worker, and let it end; returns when the adapter was begun."""
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: _trains(run) or process.poll() is not None, "a first epoch")
    begun = run.adapter("sw", "v0002").read_in_progress_marker()
    for worker in _train_workers():
        worker.kill()
    assert not run.adapter("sw", "v0002").manifest(), "it was killed too late"
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return begun


def _train_workers() -> list[psutil.Process]:
    """Those of the suite's Ray, which this process started."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if each.is_running() and "".join(each.cmdline()[:1]).startswith("ray::RayTrainWorker")]


def test_an_update_of_a_language_without_an_adapter_is_an_error(copy: Copy, small: RunConfig) -> None:
    run = copy()
    with pytest.raises(ArtifactError, match="sw has no live adapter"):
        updates.run_update(small, run, updates.Window("sw", (0, 1), "abc"))
