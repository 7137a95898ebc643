"""The routes of OpenAI's API, and ``/v1/feedback``.

COMPASS, section 3.2.5. Checks before a route runs: `middleware`, `body_reader`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from starlette.background import BackgroundTask

from compass_ray.monitoring.observations import Feedback
from compass_ray.serving.api import openapi
from compass_ray.serving.api.conversions import (
    format_route_header,
    from_chat_request,
    from_completion_request,
    to_chat_completion,
    to_compass_info,
    to_completion,
)
from compass_ray.serving.api.request_context import RequestContext, context_from_request
from compass_ray.serving.api.schema.chat import ChatCompletion, ChatRequest
from compass_ray.serving.api.schema.completions import Completion, CompletionRequest
from compass_ray.serving.api.schema.feedback import FeedbackRequest, FeedbackTaken
from compass_ray.serving.api.schema.models import ModelCard, ModelList, build_model_cards
from compass_ray.serving.api.sse import EventStreamResponse, encode_events
from compass_ray.serving.api.stream_chunks import ChatChunkFormatter, ChunkFormatter, CompletionChunkFormatter
from compass_ray.serving.inference import errors
from compass_ray.serving.inference.requests import InferenceRequest, InferenceResponse
from compass_ray.serving.inference.response_stream import ResponseStream
from compass_ray.serving.inference.service import InferenceService

ConversationHeader = Annotated[
    str | None,
    Header(
        alias="x-conversation-id",
        pattern="^[!-~]{1,128}$",
        description="A name that all turns of a conversation share, so that they keep its language and version.",
    ),
]


def build_router(service: InferenceService) -> APIRouter:
    """The routes of a service."""
    routes = APIRouter()
    _add_completions(routes, service)
    _add_models(routes, service)
    _add_feedback(routes, service)
    return routes


def _add_completions(routes: APIRouter, service: InferenceService) -> None:
    @routes.post("/v1/chat/completions", response_model=ChatCompletion, responses=openapi.declare_stream_responses())
    async def chat_completions(request: Request, body: ChatRequest, conversation: ConversationHeader = None) -> Response:
        """Answer a conversation. With ``stream``, sends server-sent events."""
        context = context_from_request(request)
        inference_request = from_chat_request(body, conversation=conversation, key=context.key, client=context.client)
        return await _Responder(service, context).respond(inference_request, body, ChatChunkFormatter, to_chat_completion)

    @routes.post("/v1/completions", response_model=Completion, responses=openapi.declare_stream_responses())
    async def completions(request: Request, body: CompletionRequest, conversation: ConversationHeader = None) -> Response:
        """Continue a text. With ``stream``, sends server-sent events."""
        context = context_from_request(request)
        inference_request = from_completion_request(body, conversation=conversation, key=context.key, client=context.client)
        return await _Responder(service, context).respond(inference_request, body, CompletionChunkFormatter, to_completion)


def _add_models(routes: APIRouter, service: InferenceService) -> None:
    def cards() -> list[ModelCard]:
        return build_model_cards(service.catalogue, service.router.languages)

    @routes.get("/v1/models", responses=openapi.declare_responses(*openapi.READ_ERRORS))
    async def list_models() -> ModelList:
        """Every valid value of ``model``."""
        await service.refresh_catalogue()
        return ModelList(data=cards())

    @routes.get("/v1/models/{name:path}", responses=openapi.declare_responses(*openapi.READ_ERRORS, 404))
    async def retrieve_model(name: str) -> ModelCard:
        """One model by name."""
        await service.refresh_catalogue()
        for card in cards():
            if card.id == name:
                return card
        raise errors.unknown_model(f"Model {name[:100]!r} does not exist. GET /v1/models lists all models.")


def _add_feedback(routes: APIRouter, service: InferenceService) -> None:
    @routes.post("/v1/feedback", responses=openapi.declare_responses(*openapi.WRITE_ERRORS))
    async def feedback(request: Request, body: FeedbackRequest) -> FeedbackTaken:
        """Rate a response, and optionally give a correction and a comment."""
        context = context_from_request(request)
        service.submit_feedback(
            Feedback(body.id, body.rating, body.correction, body.comment, context.key, service.clock(), context.client)
        )
        return FeedbackTaken(
            id=body.id, rating=body.rating, correction=body.correction is not None, comment=body.comment is not None
        )


class _Responder:
    """Sends and counts the response of one request, then triggers the follow-up work."""

    def __init__(self, service: InferenceService, context: RequestContext) -> None:
        self.service = service
        self.context = context

    async def respond(
        self,
        request: InferenceRequest,
        body: ChatRequest | CompletionRequest,
        formatter: Callable[[ResponseStream], ChunkFormatter],
        to_body: Callable[[InferenceResponse], ChatCompletion | Completion],
    ) -> Response:
        if body.stream:
            stream = await self.service.open_stream(request)
            return self._stream(stream, formatter(stream), include_usage=body.includes_usage)
        response = await self.service.answer(request)
        return self._complete(response, to_body(response))

    def _complete(self, response: InferenceResponse, body: ChatCompletion | Completion) -> Response:
        headers = {openapi.ROUTE_HEADER: format_route_header(body.compass)}

        async def after_response() -> None:
            self._after_response(response)

        return Response(
            body.model_dump_json(), media_type="application/json", headers=headers, background=BackgroundTask(after_response)
        )

    def _stream(self, stream: ResponseStream, chunks: ChunkFormatter, *, include_usage: bool) -> Response:
        headers = {
            openapi.ROUTE_HEADER: format_route_header(to_compass_info(stream.route)),
            "cache-control": "no-cache",
            "x-accel-buffering": "no",  # prevents buffering in a proxy
        }
        events = encode_events(
            stream,
            chunks,
            include_usage=include_usage,
            on_complete=self._after_response,
            on_error=self.context.record_refusal,
        )
        return EventStreamResponse(stream, events, headers)

    def _after_response(self, response: InferenceResponse) -> None:
        self.context.record_completion(response)
        self.service.after_response(response)
