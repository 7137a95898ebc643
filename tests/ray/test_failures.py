"""Failures on Ray: a driver killed at any moment, failing workers, and messages to the user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from compass_ray import pipeline, ray_session
from compass_ray.artifacts import ArtifactError, Identity, LanguagesFailedError, RunDir
from compass_ray.config import RunConfig, with_overrides
from compass_ray.models.scorer import OptionScores
from compass_ray.stages import embed, evaluate
from tests.ports import choose_free_port
from tests.ray.commands import PATIENCE_SECONDS, command_of, end_when, environment, kill_when
from tests.unit.fakes import record_contents

Copy = Callable[..., RunDir]


def _rows(run: RunDir, config: RunConfig) -> dict[str, bytes]:
    return {
        artifact.name: artifact.read_bytes("rows.parquet")
        for artifact in (run.selection(m, code) for code in config.languages for m in config.select.methods)
    }


def _num_complete(run: RunDir, stage: str, config: RunConfig) -> int:
    return next(status.complete for status in pipeline.collect_status(config, run) if status.name == stage)


@pytest.mark.slow
def test_a_run_killed_while_embedding_continues_and_selects_the_same_rows(copy: Copy, adapted: RunDir, small: RunConfig) -> None:
    run = copy("embeddings", "clusters", "selections", "adapters", "evaluations", "report")
    command = command_of("adapt", "--preset", "atlas-test", "--run", run.path)
    kill_when(lambda: Path(run.embeddings.path, "begun.json").exists(), command)
    assert _num_complete(run, "embed", small) == 0
    pipeline.run_all(small, run, until="select")
    assert _rows(run, small) == _rows(adapted, small)


class _KilledScorer(evaluate.Scorer):
    """A scorer that the system kills for lack of memory. It counts its attempts."""

    def _scores(
        self, evaluation: evaluate.Evaluation, items: pa.Table, texts: list[str] | None, batch_tokens: int
    ) -> tuple[OptionScores, None]:
        attempts = Path(self.run.path, "attempts.txt")
        attempts.write_text(attempts.read_text() + "1" if attempts.exists() else "1")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def score(self, evaluation: evaluate.Evaluation, identity: Identity, texts: list[str] | None = None) -> None:
        from compass_ray.models import memory_watch

        memory_watch.free_memory = lambda: 0
        super().score(evaluation, identity, texts)


@pytest.mark.slow
def test_a_scorer_killed_for_lack_of_memory_is_told_and_not_tried_again(
    copy: Copy, small: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy("evaluations", "report")
    monkeypatch.setattr(evaluate, "Scorer", _KilledScorer)
    wanted = [evaluate.Evaluation(evaluate.ZERO_SHOT, small.languages[0], None)]
    with pytest.raises(LanguagesFailedError, match=r"killed the worker for lack of memory: its peak .* evaluate\.batch_tokens="):
        evaluate.evaluate(small, run, wanted)
    assert Path(run.path, "attempts.txt").read_text() == "1"


class _KilledEmbedder(embed.ShardEmbedder):
    """An embedder that the system kills for lack of memory. It counts its attempts."""

    def __init__(self, uri: str, config: Mapping[str, Any], threads: int) -> None:
        from compass_ray.models import memory_watch

        super().__init__(uri, config, threads)
        memory_watch.free_memory = lambda: 0
        self.encoder.encode = self._die  # type: ignore[method-assign]

    def _die(self, prompts: Sequence[str], *, batch_size: int, batch_tokens: int | None = None) -> np.ndarray:
        attempts = Path(self.run.path, "attempts.txt")
        attempts.write_text(attempts.read_text() + "1" if attempts.exists() else "1")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.slow
def test_an_embedder_killed_for_lack_of_memory_is_told_and_not_tried_again(
    copy: Copy, small: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy("embeddings", "clusters", "selections", "adapters", "evaluations", "report")
    monkeypatch.setattr(embed, "ShardEmbedder", _KilledEmbedder)
    with pytest.raises(Exception, match="killed the worker for lack of memory") as failed:
        embed.run(small, run)
    assert "set resources.embed_batch_tokens=" in ray_session.user_message(failed.value)
    parts = list(Path(run.path, "embeddings").rglob("memory-*.json"))
    assert Path(run.path, "attempts.txt").read_text() == "1" * len(parts)


@pytest.mark.slow
def test_a_run_killed_while_training_continues_and_gives_the_same_adapters(copy: Copy, adapted: RunDir, small: RunConfig) -> None:
    run = copy("adapters", "evaluations", "report")
    command = command_of("adapt", "--preset", "atlas-test", "--run", run.path)
    kill_when(lambda: any(Path(run.path).glob("adapters/*/*/manifest.json")), command)
    finished = _num_complete(run, "train", small)
    assert 0 < finished < 6
    pipeline.run_all(small, run, until="train")
    for artifact in pipeline.stages_until("train")[-1].artifacts(small, adapted):
        again = run.artifact(*artifact.name.split("/"))
        assert again.verify().fingerprint == artifact.require().fingerprint
        assert again.read_bytes("adapter_model.safetensors") == artifact.read_bytes("adapter_model.safetensors")


def test_a_run_stopped_while_training_starts_ends_soon_with_a_message(copy: Copy) -> None:
    run = copy("adapters", "evaluations", "report")
    command = command_of("adapt", "--preset", "atlas-test", "--run", run.path)
    ended = end_when(lambda: any(Path(run.path).glob("adapters/*/*/begun.json")), command, signal.SIGTERM)
    assert ended.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; run the same command again to continue from the complete artifacts" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Started a local Ray instance" not in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "artifact"), [(signal.SIGTERM, "embeddings/pool"), (signal.SIGINT, "adapters/*/*")])
def test_a_run_whose_ray_gets_the_signal_too_ends_in_seconds_and_keeps_what_is_complete(
    copy: Copy, small: RunConfig, number: signal.Signals, artifact: str
) -> None:
    run = copy("embeddings", "clusters", "selections", "adapters", "evaluations", "report")
    before = _num_complete(run, "pool", small)
    command = command_of("adapt", "--preset", "atlas-test", "--run", run.path)
    ended = end_when(lambda: any(Path(run.path).glob(f"{artifact}/begun.json")), command, number, group=True)
    assert ended.returncode == 128 + number
    assert not any(word in ended.stderr for word in ("Traceback", "fatal", "Fatal", "Check failed"))
    assert _num_complete(run, "pool", small) == before


@pytest.mark.slow
def test_a_service_whose_ray_gets_the_signal_too_ends_in_seconds(copy: Copy) -> None:
    run, port = copy(), choose_free_port()
    ended = end_when(lambda: _answers(port), command_of("serve", run.path, "--port", str(port)), signal.SIGTERM, group=True)
    assert ended.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in ended.stderr
    assert not any(word in ended.stderr for word in ("Traceback", "fatal", "Fatal", "Check failed", "ended unexpectedly"))


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1).is_success
    except httpx.HTTPError:
        return False


def test_a_worker_s_error_reaches_the_terminal_without_frames(copy: Copy, adapted: RunDir, small: RunConfig) -> None:
    run = copy("clusters", "selections", "adapters", "evaluations", "report")
    part = run.embeddings.read_table("part-00000.parquet")
    run.embeddings.store_table("part-00000.parquet", part.take(list(reversed(range(part.num_rows)))))
    record_contents(run.embeddings)
    done = subprocess.run(
        command_of("adapt", "--preset", "atlas-test", "--run", run.path, "--json"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: embeddings/pool does not match the pool row by row; run again with --force embed" in done.stderr
    assert 'File "' not in done.stderr
    assert run.clusters.manifest() is None


@pytest.mark.slow
def test_a_base_model_that_cannot_be_loaded_is_reported_with_the_languages(copy: Copy, small: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "no-model").mkdir()
    (tmp_path / "no-model" / "config.json").write_text(json.dumps({"model_type": "none"}))
    run = copy("adapters", "evaluations", "report")
    config = with_overrides(small, [f"train.base_model={tmp_path / 'no-model'}", "languages=[sw]", "resources.max_failures=0"])
    with pytest.raises(ArtifactError, match=r"one language failed; .* sw: training: base model .*no-model") as raised:
        pipeline.run_all(config, run)
    assert 'File "' not in str(raised.value)
    assert run.adapter_versions("sw") == []


@pytest.mark.slow
def test_a_selection_without_rows_is_reported_with_the_remedy(copy: Copy, small: RunConfig) -> None:
    run = copy("adapters", "evaluations", "report")
    selection = run.selection("compass", "sw")
    selection.store_table("rows.parquet", selection.read_table("rows.parquet").slice(0, 0))
    record_contents(selection)
    config = with_overrides(small, ["languages=[sw]", "select.methods=[compass]", "resources.max_failures=0"])
    with pytest.raises(ArtifactError, match=r"selections/compass/sw has no rows: .*add data or remove"):
        pipeline.run_all(config, run, until="train")


def test_a_running_ray_is_joined_and_left_running(ray_cluster: None, small: RunConfig) -> None:
    import ray

    with ray_session.session(small.resources):
        assert ray.cluster_resources()["CPU"] == 4
    assert ray.is_initialized()
