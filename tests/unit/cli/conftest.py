"""The command in this process, and a run with versions to look at."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from compass_ray import cli, registry
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import load_run_config
from compass_ray.models.model_resolver import model_identity


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def compass_ray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command as its console script does."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("COMPASS_RAY_DEBUG", raising=False)

    def call(line: str) -> Done:
        monkeypatch.setattr("sys.argv", ["compass-ray", *shlex.split(line)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int | None)
        return Done(ended.value.code or 0, *(re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (printed.out, printed.err)))

    return call


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """``v0001`` of Swahili is live; ``v0002`` was updated from it and judged, ``v0003`` is of no parent."""
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
    run.evaluation("compass", "sw").begin(Identity("evaluate", {}, {})).publish({"accuracy": 0.625})
    registry.promote(run, "sw", "v0001", reason="first training")
    return run


@pytest.fixture
def folder(run: RunDir) -> str:
    """Where the run lies."""
    return run.uri
