"""Conversion between OpenAI's requests and responses and `InferenceRequest` and `InferenceResponse`.

This is the only module that knows both forms. COMPASS, section 3.2.5. Stream chunks are formatted in `stream_chunks`.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from compass_ray.serving.api.schema.chat import ChatCompletion, ChatRequest, Choice, ReplyMessage
from compass_ray.serving.api.schema.common_request import CommonRequest
from compass_ray.serving.api.schema.common_response import Blend, CompassInfo, Usage
from compass_ray.serving.api.schema.completions import Completion, CompletionChoice, CompletionRequest
from compass_ray.serving.api.schema.logprobs import chat_logprobs, completion_logprobs
from compass_ray.serving.inference.backend import EchoedPrompt, GenerationOutput
from compass_ray.serving.inference.requests import InferenceRequest, InferenceResponse
from compass_ray.serving.routing.router import Route

BASE = "base"


def from_chat_request(
    request: ChatRequest, *, conversation: str | None, key: str | None, client: str | None = None
) -> InferenceRequest:
    """The inference request of a chat request."""
    return InferenceRequest(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        turns=tuple((message.role, message.text) for message in request.messages),
        max_tokens=request.token_limit,
        logprobs=request.num_logprobs,
        conversation=conversation,
        key=key,
        client=client,
        **_sampling_fields(request),
    )


def from_completion_request(
    request: CompletionRequest, *, conversation: str | None, key: str | None, client: str | None = None
) -> InferenceRequest:
    """The inference request of a completion request."""
    return InferenceRequest(
        id=f"cmpl-{uuid.uuid4().hex}",
        turns=(("user", request.text),),
        chat=False,
        token_ids=request.token_ids,
        echo=bool(request.echo),
        omits_reply=request.max_tokens == 0,
        max_tokens=1 if request.max_tokens == 0 else request.max_tokens,
        logprobs=request.logprobs,
        conversation=conversation,
        key=key,
        client=client,
        **_sampling_fields(request),
    )


def to_chat_completion(response: InferenceResponse) -> ChatCompletion:
    """The body of a chat response."""
    output, with_logprobs = response.output, response.request.logprobs is not None
    choice = Choice(
        message=ReplyMessage(content=output.text),
        finish_reason=output.finish_reason,
        logprobs=chat_logprobs(output.logprobs) if with_logprobs else None,
    )
    return ChatCompletion(choices=[choice], usage=to_usage(output), compass=_applied_route(response), **_common_fields(response))


def to_completion(response: InferenceResponse) -> Completion:
    """The body of a completion response, after the prompt if its echo is requested."""
    output, with_logprobs = response.output, response.request.logprobs is not None
    if response.request.omits_reply:
        output = replace(output, text="", logprobs=(), completion_tokens=0, finish_reason="length")
    prompt = output.prompt or EchoedPrompt("")
    reply = [replace(each, text_offset=each.text_offset + len(prompt.text)) for each in output.logprobs]
    choice = CompletionChoice(
        text=prompt.text + output.text,
        finish_reason=output.finish_reason,
        logprobs=completion_logprobs([*prompt.logprobs, *reply]) if with_logprobs else None,
    )
    return Completion(choices=[choice], usage=to_usage(output), compass=_applied_route(response), **_common_fields(response))


def to_usage(output: GenerationOutput) -> Usage:
    """The token counts of a response and its prompt."""
    return Usage(
        prompt_tokens=output.prompt_tokens,
        completion_tokens=output.completion_tokens,
        total_tokens=output.prompt_tokens + output.completion_tokens,
    )


def to_compass_info(route: Route) -> CompassInfo:
    """A route in the form that clients see."""
    return CompassInfo(
        language=route.language,
        confidence=route.confidence,
        adapter=str(route.adapter) if route.adapter else None,
        reason=route.reason,
        blend=Blend(adapter=str(route.blend[0]), share=route.blend[1]) if route.blend else None,
        canary=route.canary,
    )


def format_route_header(info: CompassInfo) -> str:
    """The route as one line of printable ASCII, for the header ``x-compass-route``."""
    parts = [info.adapter or BASE, f"language={info.language or 'none'}"]
    if info.confidence is not None:
        parts.append(f"confidence={info.confidence:.3f}")
    if info.blend:
        parts.append(f"blend={info.blend.adapter}:{info.blend.share:.3f}")
    if info.canary:
        parts.append("canary")
    text = "; ".join((*parts, "reason=")) + '"' + info.reason.replace('"', "'") + '"'
    return "".join(character if " " <= character <= "~" else "?" for character in text)


def _sampling_fields(request: CommonRequest) -> dict[str, Any]:
    return {
        "model": request.model,
        "temperature": request.temperature or 0.0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "seed": request.seed,
        "stop": request.stop_strings,
        "store": request.stores_prompt,
    }


def _common_fields(response: InferenceResponse) -> dict[str, Any]:
    return {"id": response.request.id, "created": int(response.started_at), "model": response.output.adapter or BASE}


def _applied_route(response: InferenceResponse) -> CompassInfo:
    return to_compass_info(response.route).model_copy(update={"adapter": response.output.adapter})
