"""From OpenAI's requests to enquiries, and from replies to OpenAI's replies.

Key property: the one place where the two endpoints' shapes meet the service's own words. COMPASS, section 3.2.5. Streams are cut
in `events`.
"""

from __future__ import annotations

import uuid
from typing import Any

from compass_ray.serving.answering.backend import Answer
from compass_ray.serving.answering.enquiries import Enquiry, Reply
from compass_ray.serving.api.schema.chat import ChatCompletion, ChatRequest, Choice, ReplyMessage
from compass_ray.serving.api.schema.completions import Completion, CompletionChoice, CompletionRequest
from compass_ray.serving.api.schema.logprobs import chat_logprobs, completion_logprobs
from compass_ray.serving.api.schema.replies import Blend, CompassInfo, Usage
from compass_ray.serving.api.schema.sampling import Sampling
from compass_ray.serving.routing.router import Route

BASE = "base"


def chat_enquiry(request: ChatRequest, *, conversation: str | None, key: str | None) -> Enquiry:
    """The enquiry of a chat request."""
    return Enquiry(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        turns=tuple((message.role, message.text) for message in request.messages),
        max_tokens=request.token_limit,
        logprobs=request.likely_tokens,
        conversation=conversation,
        key=key,
        **_sampling(request),
    )


def completion_enquiry(request: CompletionRequest, *, conversation: str | None, key: str | None) -> Enquiry:
    """The enquiry of a request to continue a text."""
    return Enquiry(
        id=f"cmpl-{uuid.uuid4().hex}",
        turns=(("user", request.text),),
        chat=False,
        max_tokens=request.max_tokens,
        logprobs=request.logprobs,
        conversation=conversation,
        key=key,
        **_sampling(request),
    )


def chat_reply(reply: Reply) -> ChatCompletion:
    """The reply to a chat request."""
    answer, scored = reply.answer, reply.enquiry.logprobs is not None
    choice = Choice(
        message=ReplyMessage(content=answer.text),
        finish_reason=answer.finish_reason,
        logprobs=chat_logprobs(answer.scores) if scored else None,
    )
    return ChatCompletion(choices=[choice], usage=usage(answer), compass=_applied(reply), **_frame(reply))


def completion_reply(reply: Reply) -> Completion:
    """The reply to a request to continue a text."""
    answer, scored = reply.answer, reply.enquiry.logprobs is not None
    choice = CompletionChoice(
        text=answer.text,
        finish_reason=answer.finish_reason,
        logprobs=completion_logprobs(answer.scores) if scored else None,
    )
    return Completion(choices=[choice], usage=usage(answer), compass=_applied(reply), **_frame(reply))


def usage(answer: Answer) -> Usage:
    """The tokens of a reply and its prompt."""
    return Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        total_tokens=answer.prompt_tokens + answer.completion_tokens,
    )


def compass_info(route: Route) -> CompassInfo:
    """A route as clients see it."""
    return CompassInfo(
        language=route.language,
        confidence=route.confidence,
        adapter=str(route.adapter) if route.adapter else None,
        reason=route.reason,
        blend=Blend(adapter=str(route.blend[0]), share=route.blend[1]) if route.blend else None,
        canary=route.canary,
    )


def route_header(info: CompassInfo) -> str:
    """The route on one line of printable ASCII, for the header ``x-compass-route``."""
    parts = [info.adapter or BASE, f"language={info.language or 'none'}"]
    if info.confidence is not None:
        parts.append(f"confidence={info.confidence:.3f}")
    if info.blend:
        parts.append(f"blend={info.blend.adapter}:{info.blend.share:.3f}")
    if info.canary:
        parts.append("canary")
    text = "; ".join((*parts, "reason=")) + '"' + info.reason.replace('"', "'") + '"'
    return "".join(character if " " <= character <= "~" else "?" for character in text)


def _sampling(request: Sampling) -> dict[str, Any]:
    return {
        "model": request.model,
        "temperature": request.temperature or 0.0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "seed": request.seed,
        "stop": request.stops,
    }


def _frame(reply: Reply) -> dict[str, Any]:
    return {"id": reply.enquiry.id, "created": int(reply.began), "model": reply.answer.adapter or BASE}


def _applied(reply: Reply) -> CompassInfo:
    return compass_info(reply.route).model_copy(update={"adapter": reply.answer.adapter})
