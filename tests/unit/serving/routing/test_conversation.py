"""The conversation memory against a model, and what it must not store."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from compass_ray.serving.routing.conversation import ConversationMemory
from tests.unit.fakes import Clock

MOST, SECONDS = 3, 60.0
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])


class ConversationMemoryMachine(RuleBasedStateMachine):
    """The model stores everything and searches it for each query."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.memory = ConversationMemory(self.clock, max_conversations=MOST, ttl_s=SECONDS)
        self.entries: list[tuple[str, str, float]] = []

    @rule(name=NAMES, language=st.sampled_from(["sw", "ru"]))
    def remember(self, name: str, language: str) -> None:
        self.memory.remember(name, language)
        self.entries = [each for each in self.entries if each[0] != name] + [(name, language, self.clock.now)]

    @rule(seconds=st.floats(0, 2 * SECONDS))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def recalls_the_last_entries_that_are_not_expired(self) -> None:
        fresh = {n: code for n, code, at in self.entries[-MOST:] if at > self.clock.now - SECONDS}
        assert {name: self.memory.recall(name) for name in "abcde"} == {name: fresh.get(name) for name in "abcde"}
        assert len(self.memory) == len(fresh)


class TestConversationMemory(ConversationMemoryMachine.TestCase):
    settings = settings(max_examples=30)


@pytest.mark.slow
class TestConversationMemoryLonger(ConversationMemoryMachine.TestCase):
    settings = settings(max_examples=100)


@given(st.text())
def test_names_and_texts_are_not_stored(name: str) -> None:
    clock = Clock()
    memories = [ConversationMemory(clock) for _ in range(2)]
    for memory in memories:
        memory.remember(name, "sw")
        assert memory.recall(name) == "sw"
    one, other = (next(iter(memory._entries)) for memory in memories)
    assert one != other, "the same conversation has another hash in each process"
    assert name.encode("utf-8", "surrogatepass") not in one or len(name) < 3
    assert list(memories[0]._entries.values()) == [("sw", clock.now)]


@pytest.mark.parametrize("bounds", [{"max_conversations": 0}, {"ttl_s": 0.0}, {"max_conversations": -1}])
def test_limits_must_be_positive(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Expected both above 0"):
        ConversationMemory(Clock(), **bounds)  # type: ignore[arg-type]
