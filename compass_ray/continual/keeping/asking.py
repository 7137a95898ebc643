"""Canary questions asked of the adapter server itself, through its Serve handle.

Key property: they pass by the ingress, so they are no traffic: no window holds them, no drift check sees them and no statistic of
requests counts them. A version answers each greedily, a few at once, and what is not answered in time ends the round, which
is then made later. It knows no right answer by itself: see `questions`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from compass_ray.config import RunConfig
from compass_ray.continual.keeping.questions import CanaryItem, max_reply_tokens
from compass_ray.models.orders import GenerationOutput, GenerationRequest
from compass_ray.serving import app
from compass_ray.serving.registry import AdapterName

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
