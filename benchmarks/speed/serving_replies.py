"""What the bare engine says to prompts of a run that can be served, to compare a service's replies with.

Key property: each prompt is kept only if the identifier is sure of its language, every adapter version and the base give a
different greedy reply to it, and no token of these replies is a near tie; so a reply's text proves which version made it.
It knows no Ray and asks no service.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.speed.serving_run import PROMPTS, Shape, prompts
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.engine.requests import GenerationOutput, GenerationRequest

_SURE = 0.8
"""Least confidence of the identifier in a prompt's language."""
_MARGIN = 0.002
"""Nats between the two likeliest tokens: rounding in a batch of another shape moves them by far less."""

ReplyKey = tuple[str | None, str, int]
"""Adapter, prompt and most tokens of a reply."""


def expected_replies(run: RunDir, config: RunConfig, shape: Shape, *, count: int, tokens: Sequence[int]) -> dict[ReplyKey, str]:
    """The bare engine's greedy reply of every version, and the base, to ``count`` fit prompts of each language.

    Raises:
        ValueError: a language has fewer prompts that are fit.
    """
    from compass_ray.serving.adapter_server import open_engine

    engine = open_engine(config)
    for language, version in shape.names():
        with run.adapter(language, version).local_folder() as folder:
            engine.load_adapter(f"{language}@{version}", folder)
    found: dict[ReplyKey, str] = {}
    for language in shape.languages:
        wears = [None, *(f"{code}@{version}" for code, version in shape.names() if code == language)]
        fit = [_distinct_replies(engine, wears, prompt, tokens) for prompt in _confident_prompts(config, language)[: 4 * count]]
        kept = [each for each in fit if each][:count]
        if len(kept) < count:
            raise ValueError(f"{language} has {len(kept)} prompts whose replies tell all versions apart; expected {count}")
        for each in kept:
            found |= each
    engine.close()
    return found


def _confident_prompts(config: RunConfig, language: str) -> list[str]:
    """Prompts that the router takes for this language without a doubt."""
    from compass_ray.models.language_id import LanguageIdentifier

    texts = [text for text in prompts(language, PROMPTS) if sum(map(str.isalpha, text)) > config.identifier.min_letters]
    said = LanguageIdentifier(config.identifier).identify(texts, config.languages)
    return [text for text, each in zip(texts, said, strict=True) if each.language == language and each.confidence >= _SURE]


def _distinct_replies(engine: Any, wears: Sequence[str | None], prompt: str, tokens: Sequence[int]) -> dict[ReplyKey, str]:
    """The reply of each wearer at each length; nothing where the prompt is not fit."""
    found: dict[ReplyKey, str] = {}
    for most in tokens:
        orders = [GenerationRequest((("user", prompt),), adapter=each, max_tokens=most, logprobs=2) for each in wears]
        answers: list[GenerationOutput] = engine.generate(orders)
        texts = [answer.text for answer in answers]
        if len(set(texts)) < len(texts) or min(map(_min_margin, answers)) < _MARGIN:
            return {}
        found |= {(each, prompt, most): text for each, text in zip(wears, texts, strict=True)}
    return found


def _min_margin(answer: GenerationOutput) -> float:
    return min(first[1] - second[1] for first, second in (score.top_logprobs for score in answer.logprobs))
