"""A run with several adapter versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import load_run_config
from compass_ray.models.model_resolver import model_identity


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """``v0001`` of Swahili is live; ``v0002`` is an update of it with a gate verdict, ``v0003`` has no parent."""
    run = RunDir(str(tmp_path / "run"))
    run.write_config(load_run_config("atlas-test"))
    config, parents = {"base_model": model_identity("atlas")}, {}
    for version in ("v0001", "v0002", "v0003"):
        inputs = {f"selections/{version}/sw": "f00d", **(parents if version == "v0002" else {})}
        writer = run.adapter("sw", version).begin(Identity("train", {**config, "v": version}, inputs))
        writer.write_bytes("adapter_model.safetensors", version.encode())
        parents = {"parent": writer.publish({"rows": 40}).fingerprint}
    judged = run.update("sw", "v0002").begin(Identity("update", {}, {}))
    judged.write_json("gate.json", {"window_before": 2.0, "window_after": 1.5, "accepted": True, "reason": "accepted: better"})
    judged.publish()
    run.evaluation("compass", "sw").begin(Identity("evaluate", {}, {})).publish({"accuracy": 0.625, "chance": 0.25})
    registry.promote(run, "sw", "v0001", reason="first training")
    return run


@pytest.fixture
def folder(run: RunDir) -> str:
    """The folder of the run."""
    return run.uri
