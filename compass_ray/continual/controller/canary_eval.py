"""Canary questions: multiple-choice items of a language's test set, in an order of their own, and whether a reply is right.

Key property: a round is a stretch of one order that is drawn by the run's seed, so versions asked in the same round are asked the
same. What comes of them is compared between versions and nothing else: no row is selected by them and none is trained on. They
ask nobody; see `asking`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.core.seeds import generator
from compass_ray.engine.requests import GenerationOutput, GenerationRequest
from compass_ray.models.multiple_choice_prompts import Scoring, format_options, parse_choice
from compass_ray.registry import AdapterName
from compass_ray.serving import app

_MAX_LETTER_TOKENS = 8
"""Of a reply that is to begin with a letter."""


@dataclass(frozen=True)
class CanaryItem:
    """One item: what is asked, and the place of the right option."""

    text: str
    options: tuple[str, ...]
    answer_index: int

    def to_prompt(self, scoring: Scoring) -> str:
        """What a user would ask: the bare question, or with its options where a letter is wanted."""
        return self.text if scoring == "option" else format_options(self.text, self.options)

    def is_correct(self, reply: str, scoring: Scoring) -> bool:
        """Whether a reply begins with the right option."""
        return parse_choice(reply, self.options, scoring) == self.answer_index


def load_canary_items(config: RunConfig, run: RunDir, language: str) -> tuple[CanaryItem, ...]:
    """A language's test set in the order that it is asked in; none where the run has none."""
    guide = run.guide(language)
    if not guide.manifest():
        return ()
    rows = guide.read_table("test.parquet", ["question", "options", "answer"]).to_pylist()
    order = generator(config.seed, "canary questions", language).permutation(len(rows))
    return tuple(CanaryItem(rows[i]["question"], tuple(rows[i]["options"]), int(rows[i]["answer"])) for i in order)


def next_items(found: Sequence[CanaryItem], position: int, count: int) -> list[CanaryItem]:
    """So many questions from a position on, beginning again at the end.

    >>> abc = [CanaryItem(text, ("yes", "no"), 0) for text in "abc"]
    >>> [each.text for each in next_items(abc, 5, 2)]
    ['c', 'a']
    """
    return [found[(position + i) % len(found)] for i in range(count)]


def max_reply_tokens(config: RunConfig) -> int:
    """How long a reply may be."""
    most = config.serve.max_tokens
    return most if config.evaluate.scoring == "option" else min(most, _MAX_LETTER_TOKENS)


logger = logging.getLogger(__name__)

_MAX_CONCURRENT_REQUESTS = 4
"""Of the rows of a replica's batch, so many at the most; the others are the users'."""


def ask_items(config: RunConfig, language: str, version: str, asked: Sequence[CanaryItem]) -> int | None:
    """How many of the questions a version answers right; None where one was not answered."""
    right = 0
    try:
        handle = serve.get_deployment_handle(app.ADAPTER_DEPLOYMENT, app_name=app.NAME)
        for start in range(0, len(asked), _MAX_CONCURRENT_REQUESTS):
            some = asked[start : start + _MAX_CONCURRENT_REQUESTS]
            waiting = [handle.answer.remote(_generation_request(config, language, version, each)) for each in some]
            answers: list[GenerationOutput] = [each.result(timeout_s=config.serve.request_timeout_s) for each in waiting]
            right += sum(q.is_correct(a.text, config.evaluate.scoring) for q, a in zip(some, answers, strict=True))
    except (RayError, RayServeException, TimeoutError) as error:
        logger.warning("%s@%s was not asked its questions: %s", language, version, error)
        return None
    return right


def _generation_request(config: RunConfig, language: str, version: str, question: CanaryItem) -> GenerationRequest:
    return GenerationRequest(
        messages=(("user", question.to_prompt(config.evaluate.scoring)),),
        adapter=str(AdapterName(language, version)),
        max_tokens=max_reply_tokens(config),
    )
