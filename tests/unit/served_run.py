"""A run directory with adapters in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig, parse_config
from compass_ray.models.model_resolver import model_identity
from tests.unit.fakes import BASE, Clock, MakeAdapter, WordAssigner


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def assigner() -> WordAssigner:
    return WordAssigner()


@pytest.fixture
def config() -> RunConfig:
    return parse_config(
        {
            "languages": ["sw", "de"],
            "train": {"base_model": BASE},
            "drift": {"window": 100, "check_every": 20, "cooldown": 100, "permutations": 500},
        }
    )


@pytest.fixture
def run(tmp_path: Path, config: RunConfig) -> RunDir:
    made = RunDir(str(tmp_path / "run"))
    made.write_config(config)
    return made


@pytest.fixture
def make_adapter(run: RunDir) -> MakeAdapter:
    def make(language: str, version: str, *, base: str = BASE, guide: Sequence[int] = (50, 50, 0, 0, 0)) -> None:
        identity = Identity("train", {"base_model": model_identity(base, None), "name": version}, {})
        writer = run.adapter(language, version).begin(identity)
        writer.write_json("adapter_config.json", {"r": 4})
        writer.write_bytes("adapter_model.safetensors", json.dumps([language, version]).encode())
        counts = list(guide)
        writer.write_json("reference.json", {"guide_counts": counts, "selected_counts": counts, "trained_counts": counts})
        writer.publish({"loss": 0.5})

    return make
