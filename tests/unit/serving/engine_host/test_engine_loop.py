"""The engine thread: requests that join, finish, fail and are cancelled, with a fake engine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta
from compass_ray.serving.engine_host.engine_loop import GenerationLoop

SECONDS = 10.0
"""A timeout that only a defect reaches."""


@dataclass(frozen=True)
class WordOutput:
    request_id: int
    delta: OutputDelta
    final_output: GenerationOutput | None


@dataclass
class WordEngine:
    """Emits a request's words, one per step. ``hold`` waits for `gate`, ``break`` fails the step, ``endless`` never ends."""

    adapters: dict[str, str] = field(default_factory=dict)
    active: dict[int, list[str]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    next_id: int = 0

    @property
    def adapter_manager(self) -> WordEngine:
        return self

    @property
    def adapter_names(self) -> Sequence[str]:
        return tuple(self.adapters)

    @property
    def has_unfinished_requests(self) -> bool:
        return bool(self.active)

    def prepare(self, folder: Path) -> str:
        if folder.name == "damaged":
            raise ValueError("the adapter is damaged")
        return folder.name

    def install_adapter(self, name: str, prepared: Any) -> None:
        self.adapters[name] = prepared

    def unload_adapter(self, name: str) -> None:
        del self.adapters[name]

    def tokenize(self, request: GenerationRequest) -> list[int]:
        return [len(word) for word in (request.text or "").split()]

    def add_request(self, request: GenerationRequest) -> int:
        if not request.text:
            raise ValueError("the prompt is empty")
        self.next_id += 1
        self.active[self.next_id] = request.text.split()
        return self.next_id

    def abort_request(self, request_id: int) -> None:
        self.active.pop(request_id, None)

    def step(self) -> list[WordOutput]:
        self.threads.add(threading.get_ident())
        self.sizes.append(len(self.active))
        return [self._emit_word(request_id) for request_id in list(self.active)]

    def _emit_word(self, request_id: int) -> WordOutput:
        words = self.active[request_id]
        word = words.pop(0)
        if word == "hold":
            assert self.gate.wait(SECONDS)
        if word == "break":
            raise RuntimeError("out of memory")
        if word == "endless":
            words.append(word)
        if words:
            return WordOutput(request_id, OutputDelta(word), None)
        del self.active[request_id]
        return WordOutput(request_id, OutputDelta(word), GenerationOutput(word, None, 1, 1, "stop", 0.5))


@pytest.fixture
def engine() -> WordEngine:
    return WordEngine()


@pytest.fixture
def generation(engine: WordEngine) -> Iterator[GenerationLoop]:
    loop = GenerationLoop(engine)
    yield loop
    engine.gate.set()
    loop.stop()


class ReceivedOutputs(queue.SimpleQueue[Any]):
    """The outputs received by one request's sink."""

    def next(self) -> Any:
        return self.get(timeout=SECONDS)

    def all(self) -> list[str]:
        """The deltas' texts until the final output."""
        texts = []
        while not isinstance(each := self.next(), GenerationOutput):
            texts.append(each.text)
        return texts


def submit(generation: GenerationLoop, text: str) -> ReceivedOutputs:
    received = ReceivedOutputs()
    generation.submit(GenerationRequest(text=text), received.put).result(SECONDS)
    return received


def test_deltas_arrive_in_order_before_the_final_output(generation: GenerationLoop) -> None:
    assert submit(generation, "one two three").all() == ["one", "two", "three"]


def test_a_request_joins_a_running_batch(generation: GenerationLoop, engine: WordEngine) -> None:
    first = submit(generation, "hold a b c")
    received = ReceivedOutputs()
    joined = generation.submit(GenerationRequest(text="x y"), received.put)
    engine.gate.set()
    joined.result(SECONDS)
    assert received.all() == ["x", "y"]
    assert first.all() == ["hold", "a", "b", "c"]
    assert max(engine.sizes) == 2
    assert len(engine.threads) == 1


def test_an_invalid_request_fails_alone(generation: GenerationLoop) -> None:
    with pytest.raises(ValueError, match="empty"):
        generation.submit(GenerationRequest(text=""), ReceivedOutputs().put).result(SECONDS)
    assert submit(generation, "one").all() == ["one"]


def test_a_cancelled_request_leaves_the_batch_and_emits_nothing_more(generation: GenerationLoop, engine: WordEngine) -> None:
    received = ReceivedOutputs()
    request_id = generation.submit(GenerationRequest(text="endless"), received.put).result(SECONDS)
    assert received.next()
    generation.cancel(request_id)
    assert submit(generation, "one").all() == ["one"]
    assert not engine.has_unfinished_requests
    count = received.qsize()
    assert submit(generation, "two").all() == ["two"]
    assert received.qsize() == count


def test_a_failed_step_fails_only_the_active_requests(generation: GenerationLoop) -> None:
    received = submit(generation, "break")
    assert "out of memory" in str(received.next())
    assert generation.is_healthy
    assert submit(generation, "one").all() == ["one"]


def test_an_engine_with_repeated_failures_is_unhealthy(generation: GenerationLoop) -> None:
    for _ in range(3):
        assert isinstance(submit(generation, "break").next(), RuntimeError)
    assert not generation.is_healthy


def test_adapters_are_loaded_while_a_batch_runs(generation: GenerationLoop, engine: WordEngine) -> None:
    with pytest.raises(ValueError, match="damaged"):
        generation.load("sw@v0001", Path("damaged"))
    received = submit(generation, "hold a")
    engine.gate.set()
    generation.load("sw@v0001", Path("complete"))
    assert generation.names == ("sw@v0001",)
    generation.unload("sw@v0001")
    assert generation.names == ()
    assert received.all() == ["hold", "a"]


def test_stopping_fails_the_active_requests(engine: WordEngine) -> None:
    loop = GenerationLoop(engine)
    received = ReceivedOutputs()
    loop.submit(GenerationRequest(text="endless"), received.put).result(SECONDS)
    loop.stop()
    while isinstance(each := received.next(), OutputDelta):
        pass
    assert "stopped" in str(each)
    assert not loop.is_healthy


def test_a_failed_engine_thread_leaves_no_caller_waiting(engine: WordEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = GenerationLoop(engine)
    received = ReceivedOutputs()
    loop.submit(GenerationRequest(text="hold a"), received.put).result(SECONDS)

    def broken() -> bool:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(WordEngine, "has_unfinished_requests", property(lambda _: broken()))
    engine.gate.set()
    while isinstance(each := received.next(), OutputDelta):
        pass
    assert "stopped" in str(each)
    with pytest.raises(RuntimeError, match="stopped"):
        loop.submit(GenerationRequest(text="one"), ReceivedOutputs().put).result(SECONDS)
    with pytest.raises(RuntimeError, match="stopped"):
        loop.load("sw@v0001", Path("complete"))
    assert not loop.is_healthy
