"""The thread that owns an engine: orders that join, leave, fail and are given up, around a fake engine."""

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
"""Far beyond what anything here takes; reached only by a defect."""


@dataclass(frozen=True)
class Said:
    request_id: int
    delta: OutputDelta
    final_output: GenerationOutput | None


@dataclass
class WordEngine:
    """Says the words of an order's text one a step; ``hold`` waits for `gate`, ``break`` fails the step, ``endless`` stays."""

    adapters: dict[str, str] = field(default_factory=dict)
    under_way: dict[int, list[str]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    tickets: int = 0

    @property
    def adapter_manager(self) -> WordEngine:
        return self

    @property
    def adapter_names(self) -> Sequence[str]:
        return tuple(self.adapters)

    @property
    def has_unfinished_requests(self) -> bool:
        return bool(self.under_way)

    def prepare(self, folder: Path) -> str:
        if folder.name == "damaged":
            raise ValueError("the adapter is damaged")
        return folder.name

    def install_adapter(self, name: str, prepared: Any) -> None:
        self.adapters[name] = prepared

    def unload_adapter(self, name: str) -> None:
        del self.adapters[name]

    def tokenize(self, order: GenerationRequest) -> list[int]:
        return [len(word) for word in (order.text or "").split()]

    def add_request(self, order: GenerationRequest) -> int:
        if not order.text:
            raise ValueError("the prompt is empty")
        self.tickets += 1
        self.under_way[self.tickets] = order.text.split()
        return self.tickets

    def abort_request(self, ticket: int) -> None:
        self.under_way.pop(ticket, None)

    def step(self) -> list[Said]:
        self.threads.add(threading.get_ident())
        self.sizes.append(len(self.under_way))
        return [self._say(ticket) for ticket in list(self.under_way)]

    def _say(self, ticket: int) -> Said:
        words = self.under_way[ticket]
        word = words.pop(0)
        if word == "hold":
            assert self.gate.wait(SECONDS)
        if word == "break":
            raise RuntimeError("out of memory")
        if word == "endless":
            words.append(word)
        if words:
            return Said(ticket, OutputDelta(word), None)
        del self.under_way[ticket]
        return Said(ticket, OutputDelta(word), GenerationOutput(word, None, 1, 1, "stop", 0.5))


@pytest.fixture
def engine() -> WordEngine:
    return WordEngine()


@pytest.fixture
def generation(engine: WordEngine) -> Iterator[GenerationLoop]:
    loop = GenerationLoop(engine)
    yield loop
    engine.gate.set()
    loop.stop()


class Heard(queue.SimpleQueue[Any]):
    """What one order's sink was told."""

    def next(self) -> Any:
        return self.get(timeout=SECONDS)

    def all(self) -> list[str]:
        """Texts up to the answer."""
        texts = []
        while not isinstance(each := self.next(), GenerationOutput):
            texts.append(each.text)
        return texts


def ask(generation: GenerationLoop, text: str) -> Heard:
    heard = Heard()
    generation.submit(GenerationRequest(text=text), heard.put).result(SECONDS)
    return heard


def test_pieces_come_in_order_and_the_answer_last(generation: GenerationLoop) -> None:
    assert ask(generation, "one two three").all() == ["one", "two", "three"]


def test_an_order_joins_a_batch_that_is_under_way(generation: GenerationLoop, engine: WordEngine) -> None:
    first = ask(generation, "hold a b c")
    heard = Heard()
    joined = generation.submit(GenerationRequest(text="x y"), heard.put)
    engine.gate.set()
    joined.result(SECONDS)
    assert heard.all() == ["x", "y"]
    assert first.all() == ["hold", "a", "b", "c"]
    assert max(engine.sizes) == 2
    assert len(engine.threads) == 1


def test_an_order_that_cannot_be_followed_fails_alone(generation: GenerationLoop) -> None:
    with pytest.raises(ValueError, match="empty"):
        generation.submit(GenerationRequest(text=""), Heard().put).result(SECONDS)
    assert ask(generation, "one").all() == ["one"]


def test_an_order_given_up_frees_its_place_and_is_not_heard_again(generation: GenerationLoop, engine: WordEngine) -> None:
    heard = Heard()
    ticket = generation.submit(GenerationRequest(text="endless"), heard.put).result(SECONDS)
    assert heard.next()
    generation.cancel(ticket)
    assert ask(generation, "one").all() == ["one"]
    assert not engine.has_unfinished_requests
    said = heard.qsize()
    assert ask(generation, "two").all() == ["two"]
    assert heard.qsize() == said


def test_a_step_that_fails_fails_what_is_under_way_and_nothing_after(generation: GenerationLoop) -> None:
    heard = ask(generation, "break")
    assert "out of memory" in str(heard.next())
    assert generation.is_healthy
    assert ask(generation, "one").all() == ["one"]


def test_an_engine_that_fails_again_and_again_is_not_sound(generation: GenerationLoop) -> None:
    for _ in range(3):
        assert isinstance(ask(generation, "break").next(), RuntimeError)
    assert not generation.is_healthy


def test_adapters_are_loaded_while_a_batch_is_under_way(generation: GenerationLoop, engine: WordEngine) -> None:
    with pytest.raises(ValueError, match="damaged"):
        generation.load("sw@v0001", Path("damaged"))
    heard = ask(generation, "hold a")
    engine.gate.set()
    generation.load("sw@v0001", Path("whole"))
    assert generation.names == ("sw@v0001",)
    generation.unload("sw@v0001")
    assert generation.names == ()
    assert heard.all() == ["hold", "a"]


def test_stopping_fails_what_is_under_way(engine: WordEngine) -> None:
    loop = GenerationLoop(engine)
    heard = Heard()
    loop.submit(GenerationRequest(text="endless"), heard.put).result(SECONDS)
    loop.stop()
    while isinstance(each := heard.next(), OutputDelta):
        pass
    assert "stopped" in str(each)
    assert not loop.is_healthy


def test_an_engine_that_is_lost_lets_nobody_wait(engine: WordEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = GenerationLoop(engine)
    heard = Heard()
    loop.submit(GenerationRequest(text="hold a"), heard.put).result(SECONDS)

    def broken() -> bool:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(WordEngine, "has_unfinished_requests", property(lambda _: broken()))
    engine.gate.set()
    while isinstance(each := heard.next(), OutputDelta):
        pass
    assert "stopped" in str(each)
    with pytest.raises(RuntimeError, match="stopped"):
        loop.submit(GenerationRequest(text="one"), Heard().put).result(SECONDS)
    with pytest.raises(RuntimeError, match="stopped"):
        loop.load("sw@v0001", Path("whole"))
    assert not loop.is_healthy
