"""vLLM with the plugin gives the tokens and log-probabilities of transformers with PEFT, in mixed batches, in float32."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from .engines import Engine, start_engine
from .peft_models import FAMILIES, FUSED, LAYERS, Reply, generate, load_peft, make_adapters, make_model, make_prompts

TOKENS = 64
TOLERANCE = 1e-4
"""Of log-probabilities."""
REAL = ("smollm2-135m-instruct", "gemma-3-270m")


@dataclass(frozen=True)
class Subject:
    """A base model, its adapters, and what PEFT replies."""

    engine: Engine
    names: Sequence[str | None]
    prompts: Sequence[Sequence[int]]
    replies: dict[tuple[str | None, int], Reply]

    def compare(self, names: Sequence[str | None]) -> None:
        """Ask all prompts of each name in one batch."""
        requests = [(name, i) for i in range(len(self.prompts)) for name in names]
        found = self.engine.generate([(name, self.prompts[i]) for name, i in requests], TOKENS)
        for key, reply in zip(requests, found, strict=True):
            expected = self.replies[key]
            assert reply.tokens == expected.tokens, key
            assert reply.logprobs == pytest.approx(expected.logprobs, abs=TOLERANCE), key
            assert reply.prompt_logprobs == pytest.approx(expected.prompt_logprobs, abs=TOLERANCE), key


def _prepare(name: str, base: Path, folder: Path) -> tuple[list[str | None], list[list[int]]]:
    """Write the adapters of a model, and a random model itself; return their names and prompts."""
    model = make_model(name, base) if name in FAMILIES else load_peft(base, None)
    names = make_adapters(model, folder, FUSED if name == "phi3" else LAYERS)
    return [None, *names], make_prompts(model.config.vocab_size)


def _expect(base: Path, adapter: Path | None, prompts: Sequence[Sequence[int]]) -> list[Reply]:
    model = load_peft(base, adapter)
    replies = [generate(model, prompt, TOKENS) for prompt in prompts]
    del model
    gc.collect()  # a model with an adapter may refer to itself
    return replies


@pytest.fixture(scope="module", params=[*FAMILIES, *(pytest.param(name, marks=pytest.mark.real_models) for name in REAL)])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """At most one model of the oracle is in memory, and none beside the engine."""
    folder = tmp_path_factory.mktemp(request.param)
    base = folder / "base" if request.param in FAMILIES else request.getfixturevalue("real_models") / request.param
    names, prompts = _prepare(request.param, base, folder)
    replies = {
        (name, i): reply for name in names for i, reply in enumerate(_expect(base, folder / name if name else None, prompts))
    }
    with start_engine(base, folder) as engine:
        yield Subject(engine, names, prompts, replies)


def test_every_adapter_changes_the_replies(subject: Subject) -> None:
    """Otherwise the other tests would say nothing."""
    for name in subject.names[1:]:
        assert subject.replies[name, 1].prompt_logprobs != pytest.approx(subject.replies[None, 1].prompt_logprobs, abs=0.01)


def test_a_mixed_batch(subject: Subject) -> None:
    subject.compare([None, "dora", "lora", "rslora"])


def test_more_adapters_than_slots(subject: Subject) -> None:
    subject.compare(subject.names)


def test_after_unload_and_reload(subject: Subject) -> None:
    for name in ("dora", "patterns"):
        subject.engine.add(name)
        subject.engine.remove(name)
    assert not {"dora", "patterns"} & subject.engine.loaded()
    subject.compare(["patterns", None, "dora"])


def test_base_rows_have_the_same_bits_beside_adapters(subject: Subject) -> None:
    """In batches of equal sizes, since a product's rounding depends on the number of rows."""
    prompts = [prompt for prompt in subject.prompts for _ in range(2)]
    alone = subject.engine.generate([(None, prompt) for prompt in prompts], 8)
    beside = subject.engine.generate([("dora" if i % 2 else None, prompt) for i, prompt in enumerate(prompts)], 8)
    assert alone[::2] == beside[::2]
    assert alone[1::2] != beside[1::2]
