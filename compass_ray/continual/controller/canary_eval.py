"""Canary questions: multiple-choice items of a language's test set that are asked to adapter versions.

The order of the items is drawn once from the run's seed, and a round takes the next items of it. So all versions of a
round get the same questions. The results only serve to compare versions: no row is selected or trained by them.
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

logger = logging.getLogger(__name__)

_MAX_LETTER_TOKENS = 8
"""Maximum length of a reply that starts with a letter."""
_MAX_CONCURRENT_REQUESTS = 4
"""Canary requests at the same time; the remaining slots of a replica's batch are for users."""


@dataclass(frozen=True)
class CanaryItem:
    """One multiple-choice item; ``answer_index`` is the index of the correct option."""

    text: str
    options: tuple[str, ...]
    answer_index: int

    def to_prompt(self, scoring: Scoring) -> str:
        """The prompt: the question alone, or with its options if the reply is a letter."""
        return self.text if scoring == "option" else format_options(self.text, self.options)

    def is_correct(self, reply: str, scoring: Scoring) -> bool:
        """Whether a reply starts with the correct option."""
        return parse_choice(reply, self.options, scoring) == self.answer_index


def load_canary_items(config: RunConfig, run: RunDir, language: str) -> tuple[CanaryItem, ...]:
    """A language's test set in the order of asking; empty if the run has no test set."""
    guide = run.guide(language)
    if not guide.manifest():
        return ()
    rows = guide.read_table("test.parquet", ["question", "options", "answer"]).to_pylist()
    order = generator(config.seed, "canary questions", language).permutation(len(rows))
    return tuple(CanaryItem(rows[i]["question"], tuple(rows[i]["options"]), int(rows[i]["answer"])) for i in order)


def next_items(items: Sequence[CanaryItem], position: int, count: int) -> list[CanaryItem]:
    """``count`` items from ``position`` on; after the last item the first one follows.

    >>> abc = [CanaryItem(text, ("yes", "no"), 0) for text in "abc"]
    >>> [each.text for each in next_items(abc, 5, 2)]
    ['c', 'a']
    """
    return [items[(position + i) % len(items)] for i in range(count)]


def max_reply_tokens(config: RunConfig) -> int:
    """Maximum tokens of a reply."""
    limit = config.serve.max_tokens
    return limit if config.evaluate.scoring == "option" else min(limit, _MAX_LETTER_TOKENS)


def ask_items(config: RunConfig, language: str, version: str, items: Sequence[CanaryItem]) -> int | None:
    """How many items a version answers correctly; None if an item got no reply."""
    correct = 0
    try:
        handle = serve.get_deployment_handle(app.ADAPTER_DEPLOYMENT, app_name=app.NAME)
        for start in range(0, len(items), _MAX_CONCURRENT_REQUESTS):
            batch = items[start : start + _MAX_CONCURRENT_REQUESTS]
            pending = [handle.answer.remote(_generation_request(config, language, version, item)) for item in batch]
            replies: list[GenerationOutput] = [each.result(timeout_s=config.serve.request_timeout_s) for each in pending]
            correct += sum(i.is_correct(r.text, config.evaluate.scoring) for i, r in zip(batch, replies, strict=True))
    except (RayError, RayServeException, TimeoutError) as error:
        logger.warning("controller: canary questions failed, language=%s version=%s: %s", language, version, error)
        return None
    return correct


def _generation_request(config: RunConfig, language: str, version: str, item: CanaryItem) -> GenerationRequest:
    return GenerationRequest(
        messages=(("user", item.to_prompt(config.evaluate.scoring)),),
        adapter=str(AdapterName(language, version)),
        max_tokens=max_reply_tokens(config),
    )
