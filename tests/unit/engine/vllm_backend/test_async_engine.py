"""vLLM's engine in its thread, with a scripted vLLM: order of aborts and removals, refusals, and errors that leave no trace.

`tests/vllm/test_engine_contract.py` tests it with vLLM itself.
"""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compass_ray.config import AdapterConfig
from compass_ray.engine.protocol import EngineStoppedError
from compass_ray.engine.requests import GenerationOutput, GenerationRequest
from compass_ray.engine.vllm_backend import async_engine
from compass_ray.engine.vllm_backend.async_engine import VLLMEngine
from compass_ray.engine.vllm_backend.errors import GenerationFailedError
from compass_ray.models.base_model import BaseModel, freeze
from compass_ray.models.errors import ModelError
from tests.engine_contract import Recorder, submit
from tests.unit.random_adapters import random_adapter
from tests.unit.tiny_models import make_model, make_tokenizer

TOKENIZER = make_tokenizer()
ARGUMENTS = {"max_model_len": 64, "max_cpu_loras": 2}
WORDS = ("Nairobi", " is", " the", " capital")


@dataclass
class ScriptedLLM:
    """Stands for ``AsyncLLM``: replies with fixed words, one in each step.

    The prompt ``[9]`` waits until the process dies, ``[8]`` fails. A call that ``hangs`` never ends.
    """

    events: list[str] = field(default_factory=list)
    errored: bool = False
    refusal: str = ""
    hangs: str = ""
    hanging: threading.Event = field(default_factory=threading.Event)
    death: asyncio.Event = field(default_factory=asyncio.Event)

    async def die(self) -> None:
        """Be as after the end of vLLM's process: open requests fail, open calls never end."""
        self.errored = True
        self.death.set()

    async def add_lora(self, lora: Any) -> bool:
        assert all((Path(lora.folder) / name).is_file() for name in ("adapter_config.json", "adapter_model.safetensors"))
        self.events.append(f"add {lora.name}")
        await self._hang("add_lora")
        if self.refusal:
            raise RuntimeError(f"{self.refusal}\nmore lines")
        return True

    async def remove_lora(self, number: int) -> bool:
        self.events.append(f"remove {number}")
        await self._hang("remove_lora")
        return True

    async def _hang(self, call: str) -> None:
        if call == self.hangs:
            self.hanging.set()
            await asyncio.Event().wait()

    async def generate(
        self, prompt: Mapping[str, Any], params: Mapping[str, Any], request_id: str, lora_request: Any
    ) -> AsyncIterator[Any]:
        name = lora_request.name if lora_request else None
        try:
            for number, word in enumerate(WORDS):
                ids = TOKENIZER(word)["input_ids"]
                logprobs = [{token: SimpleNamespace(logprob=-0.5, rank=1)} for token in ids]
                last = number + 1 == len(WORDS)
                yield SimpleNamespace(outputs=[_completion(ids, "length" if last else None, logprobs)])
                await self._hold(prompt["prompt_token_ids"])
        except GeneratorExit:
            self.events.append(f"abort {name}")
            raise
        except asyncio.CancelledError:
            self.events.append(f"abort {name}")
            raise

    async def _hold(self, prompt: list[int]) -> None:
        if prompt == [9]:
            await self.death.wait()
            raise RuntimeError("EngineCore encountered an issue")
        if prompt == [8]:
            raise RuntimeError("a kernel failed\nmore lines")
        await asyncio.sleep(0)

    def shutdown(self) -> None:
        self.events.append("shutdown")


def _completion(ids: list[int], reason: str | None, logprobs: list[Any]) -> Any:
    return SimpleNamespace(token_ids=ids, finish_reason=reason, logprobs=logprobs)


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM()


@pytest.fixture
def base() -> BaseModel:
    model = make_model("qwen2", len(TOKENIZER)).to("meta")
    return freeze(model, TOKENIZER, torch.device("meta"), "tiny")


@pytest.fixture
def patched(llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted vLLM instead of the installed one."""

    async def open_llm(arguments: Mapping[str, Any]) -> ScriptedLLM:
        return llm

    monkeypatch.setattr(async_engine, "_open_llm", open_llm)
    monkeypatch.setattr(async_engine, "_sampling_params", dict)
    monkeypatch.setattr(async_engine, "_lora_request", lambda adapter: adapter)
    monkeypatch.setattr(async_engine, "_POLL_SECONDS", 0.01)


@pytest.fixture
def engine(llm: ScriptedLLM, base: BaseModel, patched: None) -> Iterator[VLLMEngine]:
    opened = VLLMEngine(base, ARGUMENTS)
    settle(opened)
    llm.events.clear()  # of the first replies
    yield opened
    opened.stop()


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        base = freeze(make_model("qwen2", len(TOKENIZER)), TOKENIZER, torch.device("cpu"), "tiny")
        return random_adapter(base, tmp_path / name, AdapterConfig(r=2, alpha=4), seed=0)

    return make


def request(first: int = 5, **changes: Any) -> GenerationRequest:
    return GenerationRequest(prompt_token_ids=[first], **({"max_tokens": 50} | changes))


def settle(engine: VLLMEngine) -> None:
    """Wait until the engine thread has nothing to do."""
    while engine._tasks or engine._removals:
        engine._run(asyncio.sleep(0)).result(10)


def test_a_reply_is_read_to_its_end(engine: VLLMEngine) -> None:
    _, recorder = submit(engine, request())
    assert recorder.final().finish_reason == "length"
    assert "".join(delta.text for delta in recorder.deltas) == "".join(WORDS)
    assert (engine.requests, engine.is_healthy) == (1, True)
    assert engine.steps >= 1


def test_a_stop_string_aborts_the_request_in_vllm(engine: VLLMEngine, llm: ScriptedLLM) -> None:
    _, recorder = submit(engine, request(stop=(" the",)))
    assert recorder.final().text == "Nairobi is"
    settle(engine)
    assert llm.events == ["abort None"]


def test_an_adapter_is_removed_after_the_abort_of_its_last_request(
    engine: VLLMEngine, llm: ScriptedLLM, make_adapter: Callable[[str], Path]
) -> None:
    engine.load("sw@v0001", make_adapter("sw"))
    request_id, recorder = submit(engine, request(9, adapter="sw@v0001"))
    recorder.first()
    engine.unload("sw@v0001")
    assert llm.events == ["add sw@v0001"]
    engine.cancel(request_id)
    settle(engine)
    assert llm.events == ["add sw@v0001", "abort sw@v0001", "remove 1"]
    assert not list(engine._folder.iterdir())
    assert recorder.empty()


def test_a_refused_adapter_leaves_nothing(engine: VLLMEngine, llm: ScriptedLLM, make_adapter: Callable[[str], Path]) -> None:
    llm.refusal = "rank 64 is greater than max_lora_rank 16"
    with pytest.raises(ModelError, match=r"rank 64 is greater than max_lora_rank 16$"):
        engine.load("sw@v0001", make_adapter("sw"))
    assert engine.names == ()
    assert llm.events == ["add sw@v0001", "remove 1"]
    assert not list(engine._folder.iterdir())


def test_vllm_is_not_asked_for_an_adapter_of_another_base(engine: VLLMEngine, llm: ScriptedLLM, tmp_path: Path) -> None:
    other = freeze(make_model("qwen2", len(TOKENIZER), hidden=64), TOKENIZER, torch.device("cpu"), "other")
    with pytest.raises(ModelError, match="do not fit"):
        engine.load("sw@v0001", random_adapter(other, tmp_path / "other", AdapterConfig(r=2, alpha=4), seed=0))
    assert not llm.events


def test_a_failed_request_fails_alone_with_an_error_that_any_process_can_read(engine: VLLMEngine) -> None:
    _, recorder = submit(engine, request(8))
    with pytest.raises(GenerationFailedError, match=r"^a kernel failed$"):
        recorder.final()
    _, other = submit(engine, request())
    assert isinstance(other.final(), GenerationOutput)


def test_a_dead_engine_refuses_and_fails_its_requests(
    engine: VLLMEngine, llm: ScriptedLLM, make_adapter: Callable[[str], Path]
) -> None:
    _, active = submit(engine, request(9))
    active.first()
    engine._run(llm.die()).result(10)
    with pytest.raises(EngineStoppedError):
        active.final()
    assert not engine.is_healthy
    with pytest.raises(EngineStoppedError):
        engine.submit(request(), Recorder().put).result(10)
    with pytest.raises(EngineStoppedError):
        engine.load("sw@v0001", make_adapter("sw"))


async def wait_for_report(engine: VLLMEngine) -> None:
    await asyncio.wait([engine._watcher])


@pytest.mark.parametrize("is_removing", [False, True])
def test_the_end_of_the_process_is_logged_once(
    is_removing: bool,
    llm: ScriptedLLM,
    base: BaseModel,
    patched: None,
    make_adapter: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), name="EngineCore", daemon=True)

    async def open_llm(arguments: Mapping[str, Any]) -> ScriptedLLM:
        process.start()
        return llm

    monkeypatch.setattr(async_engine, "_open_llm", open_llm)
    engine = VLLMEngine(base, ARGUMENTS)
    engine.load("sw@v0001", make_adapter("sw"))
    process.kill()
    engine._run(llm.die()).result(10)
    engine._run(wait_for_report(engine)).result(10)
    if is_removing:
        engine.unload("sw@v0001")
        settle(engine)
    engine.stop()
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"process EngineCore ({process.pid}) was ended by SIGKILL; requests and health checks" in line


def test_a_stopped_engine_is_not_reported_as_dead(engine: VLLMEngine, llm: ScriptedLLM, caplog: pytest.LogCaptureFixture) -> None:
    engine.stop()
    assert engine._watcher.cancelled()
    assert not caplog.records


@pytest.fixture
def start_load(engine: VLLMEngine, make_adapter: Callable[[str], Path]) -> Iterator[Callable[[], Future[None]]]:
    with ThreadPoolExecutor(1) as pool:
        yield lambda: pool.submit(engine.load, "sw@v0001", make_adapter("sw"))


def test_a_load_ends_when_the_process_dies_during_it(
    engine: VLLMEngine, llm: ScriptedLLM, start_load: Callable[[], Future[None]]
) -> None:
    llm.hangs = "add_lora"
    loading = start_load()
    assert llm.hanging.wait(10)
    engine._run(llm.die()).result(10)
    with pytest.raises(EngineStoppedError):
        loading.result(10)


def test_a_refusal_by_a_dead_process_is_no_fault_of_the_adapter(
    engine: VLLMEngine, llm: ScriptedLLM, make_adapter: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def add_lora(lora: Any) -> bool:
        await llm.die()
        raise RuntimeError("EngineCore encountered an issue")

    monkeypatch.setattr(llm, "add_lora", add_lora)
    with pytest.raises(EngineStoppedError):
        engine.load("sw@v0001", make_adapter("sw"))


def test_a_stop_ends_loads_and_removals(
    engine: VLLMEngine, llm: ScriptedLLM, make_adapter: Callable[[str], Path], start_load: Callable[[], Future[None]]
) -> None:
    engine.load("hi@v0001", make_adapter("hi"))
    llm.hangs = "add_lora"
    loading = start_load()
    assert llm.hanging.wait(10)
    llm.hangs = "remove_lora"
    engine.unload("hi@v0001")
    engine.stop()
    with pytest.raises(EngineStoppedError):
        loading.result(10)
    assert llm.events[-1] == "shutdown"
    assert not engine._folder.exists()


def test_a_stop_directly_after_a_request_fails_it(engine: VLLMEngine) -> None:
    recorder = Recorder()

    async def submit_and_stop() -> None:
        await engine._submit(request(9), recorder.put)
        await engine._stop()

    engine._run(submit_and_stop()).result(10)
    with pytest.raises(EngineStoppedError):
        recorder.final()


def test_a_failed_shutdown_still_ends_the_thread_and_the_processes(
    engine: VLLMEngine, llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("cannot")

    monkeypatch.setattr(llm, "shutdown", fail)
    engine.stop()
    assert not engine._thread.is_alive()
    assert not engine._folder.exists()


def test_a_failed_copy_leaves_no_folder(
    engine: VLLMEngine, llm: ScriptedLLM, make_adapter: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = make_adapter("sw")
    for _ in range(ARGUMENTS["max_cpu_loras"] + 1):
        with monkeypatch.context() as full:
            full.setattr(async_engine.shutil, "copyfile", fail)
            with pytest.raises(ModelError, match=r"sw.*cannot be copied to .*: No space left on device"):
                engine.load("sw@v0001", folder)
    assert not list(engine._folder.iterdir())
    engine.load("sw@v0001", folder)
    assert engine.names == ("sw@v0001",)


def test_a_replaced_adapter_makes_room_before_the_next_load(engine: VLLMEngine, make_adapter: Callable[[str], Path]) -> None:
    folder = make_adapter("sw")
    for _ in range(3 * ARGUMENTS["max_cpu_loras"]):
        engine.load("sw@v0001", folder)
    settle(engine)
    assert len(list(engine._folder.iterdir())) == 1


def test_a_request_that_cannot_be_made_keeps_no_adapter(
    engine: VLLMEngine, llm: ScriptedLLM, make_adapter: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*values: Any) -> None:
        raise TypeError("unexpected")

    engine.load("sw@v0001", make_adapter("sw"))
    monkeypatch.setattr(async_engine, "sampling_arguments", fail)
    with pytest.raises(TypeError):
        submit(engine, request(adapter="sw@v0001"))
    engine.unload("sw@v0001")
    settle(engine)
    assert llm.events[-1] == "remove 1"


def test_an_engine_that_does_not_generate_is_an_error_of_the_model(
    llm: ScriptedLLM, base: BaseModel, patched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(prompt: list[int]) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(llm, "_hold", fail)
    with pytest.raises(ModelError, match=r"^vLLM does not generate: no kernel image; its log"):
        VLLMEngine(base, ARGUMENTS)
    assert llm.events[-1] == "shutdown"


def test_an_environment_without_vllm_is_named(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match=r"no module vllm.*set serve\.vllm\.python"):
        VLLMEngine(base, ARGUMENTS)


def test_an_engine_that_does_not_start_leaves_no_folder(base: BaseModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def fail(arguments: Mapping[str, Any]) -> None:
        raise ModelError("vLLM does not start: no memory")

    monkeypatch.setattr(async_engine, "_open_llm", fail)
    monkeypatch.setattr(async_engine.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "made"))
    (tmp_path / "made").mkdir()
    with pytest.raises(ModelError, match="no memory"):
        VLLMEngine(base, ARGUMENTS)
    assert not (tmp_path / "made").exists()
