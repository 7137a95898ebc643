"""vLLM as the engine of the service passes the contract of all engines."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from compass_ray.config import RunConfig, with_overrides
from compass_ray.engine.protocol import EngineStoppedError, GenerationEngine
from compass_ray.engine.vllm_backend.async_engine import VLLMEngine
from compass_ray.engine.vllm_backend.orphan_guard import MARK_VARIABLE, find_marked
from compass_ray.models.errors import ModelError
from compass_ray.serving.adapter_server import open_generation
from tests.engine_contract import PROMPTS, SECONDS, ContractModels, EngineContract, ask, make_contract_models, plain, submit

SLOTS = 4
"""Adapters of one batch; the contract loads more."""


def vllm_config(models: ContractModels) -> RunConfig:
    arguments = f"serve.vllm.arguments={{max_loras: {SLOTS}, max_num_batched_tokens: 192}}"
    return with_overrides(models.config(), ["serve.engine=vllm", arguments])


@pytest.fixture(scope="module")
def contract_models(tmp_path_factory: pytest.TempPathFactory) -> ContractModels:
    return make_contract_models(Path(tmp_path_factory.mktemp("contract")))


@pytest.fixture(scope="module")
def open_fresh(contract_models: ContractModels) -> Callable[[], GenerationEngine]:
    return lambda: open_generation(vllm_config(contract_models))


@pytest.fixture(scope="module")
def engine(open_fresh: Callable[[], GenerationEngine]) -> Iterator[GenerationEngine]:
    opened = open_fresh()
    yield opened
    opened.stop()


class TestVLLMEngine(EngineContract):
    def test_blends_are_refused_by_name(self, engine: GenerationEngine, contract_models: ContractModels) -> None:
        first, second, _ = contract_models.adapters
        with pytest.raises(ModelError, match=r"cannot blend.*identifier\.blend_adapters"):
            submit(engine, plain("Habari", first, blend=(second, 0.5)))

    def test_an_adapter_that_only_vllm_refuses_leaves_nothing_behind(
        self, engine: VLLMEngine, contract_models: ContractModels
    ) -> None:
        folder = contract_models.adapter("wide", r=64, alpha=64)
        with pytest.raises(ModelError, match="rank"):
            engine.load("wide@v0001", folder)
        assert "wide@v0001" not in engine.names
        assert ask(engine, [plain(PROMPTS[0], contract_models.adapters[0])])

    def test_no_more_adapters_are_resident_than_vllm_keeps(self, engine: VLLMEngine, contract_models: ContractModels) -> None:
        engine._leases.max_resident, limit = len(engine.names), engine._leases.max_resident
        try:
            with pytest.raises(ModelError, match="max_cpu_loras"):
                engine.load("one@v0001", contract_models.folder / contract_models.adapters[0])
        finally:
            engine._leases.max_resident = limit

    def test_removed_adapters_leave_vllm_and_the_disk(self, engine: VLLMEngine, contract_models: ContractModels) -> None:
        engine.load("once@v0001", contract_models.folder / contract_models.adapters[0])
        engine.unload("once@v0001")
        ask(engine, [plain(PROMPTS[0])])
        resident = engine._run(engine._llm.list_loras()).result(60)
        assert len(resident) == len(engine.names) == len(list(engine._folder.iterdir()))


def find_core() -> psutil.Process:
    """The process that computes for the engine that was opened last."""
    marked = find_marked(os.environ[MARK_VARIABLE], os.getpid())
    return next(each for each in psutil.Process().children() if each.pid in marked)


def test_a_dead_engine_is_reported_and_leaves_no_process(open_fresh: Callable[[], GenerationEngine]) -> None:
    engine = open_fresh()
    assert isinstance(engine, VLLMEngine)
    mark, core = os.environ[MARK_VARIABLE], find_core()
    _, recorder = submit(engine, plain(PROMPTS[3], max_tokens=60))
    core.send_signal(signal.SIGKILL)
    with pytest.raises(EngineStoppedError):
        recorder.final()
    assert not engine.is_healthy
    with pytest.raises(EngineStoppedError):
        submit(engine, plain(PROMPTS[0]))
    engine.stop()
    assert not find_marked(mark, os.getpid())
    assert not engine._folder.exists()


def test_a_load_ends_when_the_process_dies_during_it(
    open_fresh: Callable[[], VLLMEngine], contract_models: ContractModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, core, is_sent = open_fresh(), find_core(), threading.Event()
    add_lora = engine._llm.add_lora

    async def send(lora: Any) -> Any:
        is_sent.set()
        return await add_lora(lora)

    monkeypatch.setattr(engine._llm, "add_lora", send)
    core.suspend()
    name = contract_models.adapters[0]
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(engine.load, name, contract_models.folder / name)
        assert is_sent.wait(SECONDS)
        core.kill()
        with pytest.raises(EngineStoppedError):
            loading.result(SECONDS)
    engine.stop()


def test_two_processes_share_each_layer(contract_models: ContractModels) -> None:
    """Tensor parallelism with two ranks on a CPU, without a GPU reservation."""
    engine = open_generation(with_overrides(vllm_config(contract_models), ["serve.vllm.tensor_parallel=2"]))
    try:
        for name in contract_models.adapters:
            engine.load(name, contract_models.folder / name)
        requests = [plain(prompt, name) for prompt in PROMPTS for name in (None, *contract_models.adapters)]
        expected = [contract_models.text(contract_models.reply(request)) for request in requests]
        assert [output.text for output in ask(engine, requests)] == expected
    finally:
        engine.stop()
