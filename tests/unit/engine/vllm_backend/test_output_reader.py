"""vLLM's outputs become the same replies as those of our engine: texts, ends, log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from compass_ray.engine.input_processor import InputProcessor
from compass_ray.engine.requests import GenerationRequest
from compass_ray.engine.vllm_backend.errors import GenerationFailedError
from compass_ray.engine.vllm_backend.output_reader import read_output, sampling_arguments
from tests.unit.tiny_models import make_tokenizer

TOKENIZER = make_tokenizer()
END: int = TOKENIZER.eos_token_id


@dataclass
class Candidate:
    """As vLLM's ``Logprob``."""

    logprob: float
    rank: int


@dataclass
class Completion:
    """As vLLM's ``CompletionOutput``."""

    token_ids: Sequence[int]
    finish_reason: str | None = None
    logprobs: Sequence[Mapping[int, Candidate]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.logprobs = self.logprobs or [{token: Candidate(-0.5, 1)} for token in self.token_ids]


def state(**changes: Any) -> Any:
    request = GenerationRequest(text="Habari", **({"max_tokens": 50} | changes))
    return InputProcessor(TOKENIZER, 100, len(TOKENIZER)).make_state(request, ())


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text)["input_ids"])


def test_deltas_of_several_tokens_are_joined_and_the_end_token_counts_for_the_loss_only() -> None:
    reply = state()
    first = read_output(reply, Completion(ids("Nairobi is ")), {END})
    last = read_output(reply, Completion([*ids("the capital"), END], "stop"), {END})
    output = reply.make_output()
    assert reply.is_finished
    assert first.text + last.text == output.text == "Nairobi is the capital"
    assert (output.finish_reason, output.mean_nll) == ("stop", 0.5)
    assert output.completion_tokens == len(ids("Nairobi is ")) + len(ids("the capital"))


def test_tokens_after_a_stop_string_are_left_out() -> None:
    reply = state(stop=("capital",))
    delta = read_output(reply, Completion([*ids("Nairobi is the capital"), *ids(" of Kenya")]), {END})
    assert reply.is_finished
    assert delta.text == reply.make_output().text == "Nairobi is the "
    assert len(reply.sampled_logprobs) <= len(ids("Nairobi is the capital"))


def test_a_stop_token_that_only_vllm_knows_ends_the_reply() -> None:
    reply = state()
    read_output(reply, Completion(ids("0 1"), "stop"), {END})
    assert reply.is_finished
    assert reply.make_output().finish_reason == "stop"


def test_the_longest_reply_ends_by_its_length() -> None:
    reply = state(max_tokens=2)
    read_output(reply, Completion(ids("0 1")[:2], "length"), {END})
    assert reply.make_output().finish_reason == "length"


def test_listed_log_probabilities_are_the_most_likely_ones_by_rank() -> None:
    token, *others = ids("A") + ids("B") + ids("C")
    candidates = {token: Candidate(-3.0, 9), others[1]: Candidate(-0.2, 1), others[0]: Candidate(-1.0, 2)}
    reply = state(logprobs=2)
    read_output(reply, Completion([token], None, [candidates]), {END})
    read_output(reply, Completion([END], "stop"), {END})
    (score,) = reply.make_output().logprobs
    assert (score.token_id, score.logprob) == (token, -3.0)
    assert [(each.token_id, each.logprob) for each in score.top_logprobs] == [(others[1], -0.2), (others[0], -1.0)]


@pytest.mark.parametrize("reason", ["abort", "error", "repetition"])
def test_an_incomplete_reply_is_an_error(reason: str) -> None:
    with pytest.raises(GenerationFailedError, match=reason):
        read_output(state(), Completion([], reason), {END})


def test_the_loss_of_each_token_is_always_requested_and_end_tokens_are_the_template_s() -> None:
    arguments = sampling_arguments(GenerationRequest(text="x", temperature=0.7, seed=3), {7, 2})
    assert (arguments["logprobs"], arguments["stop_token_ids"], arguments["seed"]) == (0, [2, 7], 3)
    assert sampling_arguments(GenerationRequest(text="x", logprobs=4), {2})["logprobs"] == 4


@pytest.mark.parametrize("seed", [-1, -(1 << 62), (1 << 64) - 1])
def test_no_seed_is_vllm_s_word_for_none(seed: int) -> None:
    assert sampling_arguments(GenerationRequest(text="x", seed=seed), {2})["seed"] >= 0
    assert sampling_arguments(GenerationRequest(text="x"), {2})["seed"] is None
