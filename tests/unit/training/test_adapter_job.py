"""One adapter from a selection: published with its metrics, resumed after a kill, and tracked without duplicates."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
import torch

from compass_ray.artifacts import Artifact, ArtifactError, RunDir
from compass_ray.config import with_overrides
from compass_ray.models.base_model import BaseModel
from compass_ray.training import adapter_job
from compass_ray.training.adapter_job import tracking_artifact, train_adapter
from tests.unit.training.adapter_run import CONFIG, make_run, plan_of

TRACKED = with_overrides(CONFIG, ["train.tracking=tensorboard"])
STEPS = 3 * 3
"""Three epochs of nine rows in batches of four."""


class KilledError(Exception):
    """Simulates a lost worker."""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(str(tmp_path / "run"))


def adapter_of(run: RunDir) -> bytes:
    return plan_of(run).artifact.read_bytes("adapter_model.safetensors")


def events(folder: Artifact) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every event, by tag, read from the records in TensorBoard's order."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for file in folder.files():
        data, at = folder.read_bytes(file), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
            at += length + 16
    return found


def kill_after(epochs: int, monkeypatch: pytest.MonkeyPatch, *, stored: bool) -> None:
    """End training in epoch ``epochs``, before or after its state is stored."""
    original = Artifact.store_bytes

    def store(artifact: Artifact, file: str, data: bytes) -> None:
        ends = file == "state.pt" and len(torch.load(io.BytesIO(data))["history"]) == epochs
        if stored or not ends:
            original(artifact, file, data)
        if ends:
            raise KilledError

    monkeypatch.setattr(adapter_job.Artifact, "store_bytes", store)


def test_the_manifest_has_the_training_metrics(run: RunDir, base: BaseModel) -> None:
    manifest = train_adapter(CONFIG, run, plan_of(run), base)
    assert manifest == plan_of(run).artifact.verify()
    assert manifest.metrics.keys() == {"rows", "best_epoch", "seconds", "tokens_per_second"}
    assert manifest.metrics["rows"] == 12
    history = plan_of(run).artifact.read_json("history.json")
    assert manifest.metrics["tokens_per_second"] > 0
    assert history["tokens"] % 3 == history["reply_tokens"] % 3 == 0
    assert 0 < history["reply_tokens"] < history["tokens"]
    assert history["steps"] == STEPS
    assert len(history["epochs"]) == 3
    assert not tracking_artifact(run, plan_of(run).artifact).files()


def test_tracking_has_every_step_and_does_not_change_the_adapter(run: RunDir, base: BaseModel, tmp_path: Path) -> None:
    train_adapter(TRACKED, run, plan_of(run), base)
    plain = make_run(str(tmp_path / "plain"))
    train_adapter(CONFIG, plain, plan_of(plain), base)
    assert adapter_of(run) == adapter_of(plain)
    folder = tracking_artifact(run, plan_of(run).artifact)
    assert folder.name == "tracking/sw/v0001"
    assert folder.files() == [f"events.out.tfevents.{epoch:010d}" for epoch in (1, 2, 3)]
    found = events(folder)
    assert [step for step, _ in found["train/loss"]] == list(range(STEPS))
    assert [step for step, _ in found["train/learning_rate"]] == list(range(STEPS))
    epochs = plan_of(run).artifact.read_json("history.json")["epochs"]
    ends = [(3 * epoch["epoch"] - 1, pytest.approx(epoch["validation_loss"])) for epoch in epochs]
    assert found["epoch/validation_loss"] == ends
    assert [value for _, value in found["epoch/train_loss"]] == [pytest.approx(epoch["train_loss"]) for epoch in epochs]


@pytest.mark.parametrize(("stored", "tokens"), [(True, "null"), (False, "null"), (True, "700"), (False, "700")])
def test_a_killed_training_resumes_without_duplicate_events(
    run: RunDir, base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool, tokens: str
) -> None:
    config = with_overrides(TRACKED, ["train.step_tokens=80", f"train.tokens={tokens}"])
    with monkeypatch.context() as patch:
        kill_after(2, patch, stored=stored)
        with pytest.raises(KilledError):
            train_adapter(config, run, plan_of(run), base)
    train_adapter(config, run, plan_of(run), base)
    straight = make_run(str(tmp_path / "straight"))
    train_adapter(config, straight, plan_of(straight), base)
    histories = [plan_of(each).artifact.read_json("history.json") for each in (run, straight)]
    assert len({tuple(history[key] for key in ("tokens", "reply_tokens", "steps", "best_epoch")) for history in histories}) == 1
    assert adapter_of(run) == adapter_of(straight)
    found, expected = (events(tracking_artifact(each, plan_of(each).artifact)) for each in (run, straight))
    assert found["train/loss"] == expected["train/loss"]
    assert found.keys() == expected.keys()


def test_a_training_from_the_start_removes_earlier_events(run: RunDir, base: BaseModel) -> None:
    train_adapter(TRACKED, run, plan_of(run), base)
    plan_of(run).artifact.begin(plan_of(run).identity)
    train_adapter(with_overrides(TRACKED, ["train.epochs=1"]), run, plan_of(run), base)
    assert len(tracking_artifact(run, plan_of(run).artifact).files()) == 1


def test_tracking_goes_to_an_object_store(s3_uri: str, base: BaseModel) -> None:
    run = make_run(s3_uri)
    train_adapter(with_overrides(TRACKED, ["train.epochs=2"]), run, plan_of(run), base)
    found = events(tracking_artifact(run, plan_of(run).artifact))
    assert [step for step, _ in found["train/loss"]] == list(range(6))


@pytest.mark.parametrize("override", ["train.batches=packed", "train.gradient_checkpointing=true"])
def test_packing_and_checkpointing_do_not_change_the_result(base: BaseModel, tmp_path: Path, override: str) -> None:
    losses = []
    for folder, config in (("a", CONFIG), ("b", with_overrides(CONFIG, [override]))):
        run = make_run(str(tmp_path / folder))
        train_adapter(config, run, plan_of(run), base)
        losses.append([e["validation_loss"] for e in plan_of(run).artifact.read_json("history.json")["epochs"]])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x04cposix\nsystem\n(X\x04\x00\x00\x00truetR."])
def test_a_damaged_state_is_named_with_safe_advice(run: RunDir, base: BaseModel, content: bytes) -> None:
    artifact = plan_of(run).artifact
    artifact.store_bytes("state.pt", content)
    with pytest.raises(ArtifactError, match=r"state\.pt is damaged .*; remove .* and run again") as error:
        adapter_job._load_state(artifact)
    assert "weights_only" not in str(error.value)
