"""Expected replies: the engine's replies to prompts of a run, for comparison with those of a service.

A prompt is used only if the identifier is confident of its language, every adapter version and the base give a different greedy
reply, and no token of these replies is a near tie. The text of a reply therefore identifies its version. This module uses
neither Ray nor a service.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.speed.serving_fixture import PROMPTS, Shape, prompts
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.engine.requests import GenerationOutput, GenerationRequest

_MIN_CONFIDENCE = 0.8
"""Minimum confidence of the identifier in the language of a prompt."""
_MARGIN = 0.002
"""Minimum difference in nats of the two likeliest tokens. Rounding in a batch of another shape changes far less."""

ReplyKey = tuple[str | None, str, int]
"""Adapter, prompt and maximum number of tokens of a reply."""


def expected_replies(run: RunDir, config: RunConfig, shape: Shape, *, count: int, tokens: Sequence[int]) -> dict[ReplyKey, str]:
    """The engine's greedy replies of every version and the base to ``count`` suitable prompts of each language.

    Raises:
        ValueError: a language has too few suitable prompts.
    """
    from compass_ray.serving.adapter_server import open_engine

    engine = open_engine(config)
    for language, version in shape.names():
        with run.adapter(language, version).local_folder() as folder:
            engine.load_adapter(f"{language}@{version}", folder)
    found: dict[ReplyKey, str] = {}
    for language in shape.languages:
        adapters = [None, *(f"{code}@{version}" for code, version in shape.names() if code == language)]
        candidates = [
            _distinct_replies(engine, adapters, prompt, tokens) for prompt in _confident_prompts(config, language)[: 4 * count]
        ]
        suitable = [each for each in candidates if each][:count]
        if len(suitable) < count:
            raise ValueError(f"{language} has {len(suitable)} prompts with distinct replies of all versions; expected {count}")
        for each in suitable:
            found |= each
    engine.close()
    return found


def _confident_prompts(config: RunConfig, language: str) -> list[str]:
    """Prompts that the router identifies as this language with high confidence."""
    from compass_ray.models.language_id import LanguageIdentifier

    texts = [text for text in prompts(language, PROMPTS) if sum(map(str.isalpha, text)) > config.identifier.min_letters]
    predictions = LanguageIdentifier(config.identifier).identify(texts, config.languages)
    return [
        text
        for text, each in zip(texts, predictions, strict=True)
        if each.language == language and each.confidence >= _MIN_CONFIDENCE
    ]


def _distinct_replies(engine: Any, adapters: Sequence[str | None], prompt: str, tokens: Sequence[int]) -> dict[ReplyKey, str]:
    """The reply of each adapter at each length; empty if the prompt is not suitable."""
    found: dict[ReplyKey, str] = {}
    for max_tokens in tokens:
        requests = [GenerationRequest((("user", prompt),), adapter=each, max_tokens=max_tokens, logprobs=2) for each in adapters]
        outputs: list[GenerationOutput] = engine.generate(requests)
        texts = [output.text for output in outputs]
        if len(set(texts)) < len(texts) or min(map(_min_margin, outputs)) < _MARGIN:
            return {}
        found |= {(each, prompt, max_tokens): text for each, text in zip(adapters, texts, strict=True)}
    return found


def _min_margin(output: GenerationOutput) -> float:
    return min(first.logprob - second.logprob for first, second in (score.top_logprobs for score in output.logprobs))
