"""The endpoint of a conversation at the terminal: the run's adapters, its own key, and no Ray."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import httpx
import pytest

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import load_run_config
from compass_ray.models.base_model import load_base
from compass_ray.models.model_resolver import model_identity
from compass_ray.serving.local_endpoint import open_local_endpoint
from tests.unit.command_line import Command
from tests.unit.random_adapters import random_adapter


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run with one random adapter of Swahili, which is live."""
    made, config = RunDir(str(tmp_path / "run")), load_run_config("atlas-test")
    made.write_config(config)
    base = load_base(config.train)
    writer = made.adapter("sw", "v0001").begin(Identity("train", {"base_model": model_identity(config.train.base_model)}, {}))
    writer.write_folder(lambda into: random_adapter(base, into, config.train.adapter, seed=0))
    writer.publish({"rows": 40})
    registry.promote(made, "sw", "v0001")
    return made


def test_only_who_has_the_key_is_answered(run: RunDir) -> None:
    body = {"model": "sw", "max_tokens": 2, "messages": [{"role": "user", "content": "Mji mkuu wa Kenya ni upi?"}]}
    with open_local_endpoint(run, run.read_config()) as address, httpx.Client(base_url=address.url) as client:
        refused = client.post("/v1/chat/completions", json=body)
        found = client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {address.key}"})
    assert (refused.status_code, found.status_code) == (401, 200)
    assert found.headers["x-compass-route"].startswith("sw@v0001; ")


def test_chat_starts_it_and_sends_its_key(run: RunDir, compass_ray: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Mji mkuu wa Kenya ni upi?\n"))
    done = compass_ray(f"chat {run.uri} --model sw --set serve.max_tokens=2 --set serve.port=1")
    assert (done.code, "error" in done.out) == (0, False), done.out + done.err
    assert "[sw@v0001" in done.out
    assert not sys.modules.get("ray") or not sys.modules["ray"].is_initialized()


def test_chat_names_the_remedy_if_this_environment_has_no_vllm(
    run: RunDir, compass_ray: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compass_ray.cli.chat.find_spec", lambda name: None)
    done = compass_ray(f"chat {run.uri} --set serve.engine=vllm --set serve.vllm.python=/opt/vllm/bin/python --set serve.port=1")
    assert done.code != 0
    assert "--set serve.engine=compass" in " ".join((done.out + done.err).split())
