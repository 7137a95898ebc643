"""The routes that clients of OpenAI's API know, and ``/v1/feedback``.

COMPASS, section 3.2.5. Not here: what is refused before a route runs (`guards`, `bodies`).
"""

from __future__ import annotations

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
from compass_ray.serving.inference.requests import InferenceResponse
from compass_ray.serving.inference.response_stream import ResponseStream
from compass_ray.serving.inference.service import InferenceService

ConversationHeader = Annotated[
    str | None,
    Header(
        alias="x-conversation-id",
        pattern="^[!-~]{1,128}$",
        description="a name of your own that all turns of a conversation share; they keep its language and version",
    ),
]


def build_router(service: InferenceService) -> APIRouter:
    """The routes over a service."""
    routes = APIRouter()
    _add_completions(routes, service)
    _add_models(routes, service)
    _add_feedback(routes, service)
    return routes


def _add_completions(routes: APIRouter, service: InferenceService) -> None:
    @routes.post("/v1/chat/completions", response_model=ChatCompletion, responses=openapi.declare_stream_responses())
    async def chat_completions(request: Request, body: ChatRequest, conversation: ConversationHeader = None) -> Response:
        """Answer a conversation; ``stream`` gives server-sent events."""
        known = context_from_request(request)
        enquiry = from_chat_request(body, conversation=conversation, key=known.key)
        ending = _ResponseBuilder(service, known)
        if body.stream:
            opened = await service.open_stream(enquiry)
            return ending.stream(opened, ChatChunkFormatter(opened), counted=body.includes_usage)
        reply = await service.answer(enquiry)
        return ending.complete(reply, to_chat_completion(reply))

    @routes.post("/v1/completions", response_model=Completion, responses=openapi.declare_stream_responses())
    async def completions(request: Request, body: CompletionRequest, conversation: ConversationHeader = None) -> Response:
        """Continue a text; ``stream`` gives server-sent events."""
        known = context_from_request(request)
        enquiry = from_completion_request(body, conversation=conversation, key=known.key)
        ending = _ResponseBuilder(service, known)
        if body.stream:
            opened = await service.open_stream(enquiry)
            return ending.stream(opened, CompletionChunkFormatter(opened), counted=body.includes_usage)
        reply = await service.answer(enquiry)
        return ending.complete(reply, to_completion(reply))


def _add_models(routes: APIRouter, service: InferenceService) -> None:
    def named() -> list[ModelCard]:
        return build_model_cards(service.catalogue, service.router.languages)

    @routes.get("/v1/models", responses=openapi.declare_responses(*openapi.READ_ERRORS))
    async def list_models() -> ModelList:
        """Every name that ``model`` may take."""
        await service.refresh_catalogue()
        return ModelList(data=named())

    @routes.get("/v1/models/{name:path}", responses=openapi.declare_responses(*openapi.READ_ERRORS, 404))
    async def retrieve_model(name: str) -> ModelCard:
        """One of them."""
        await service.refresh_catalogue()
        for card in named():
            if card.id == name:
                return card
        raise errors.unknown_model(f"model {name[:100]!r} does not exist; GET /v1/models lists those that do")


def _add_feedback(routes: APIRouter, service: InferenceService) -> None:
    @routes.post("/v1/feedback", responses=openapi.declare_responses(*openapi.WRITE_ERRORS))
    async def feedback(request: Request, body: FeedbackRequest) -> FeedbackTaken:
        """Say of a reply whether it was good, and what it should have been."""
        service.submit_feedback(
            Feedback(body.id, body.rating, body.correction, body.comment, context_from_request(request).key, service.clock())
        )
        return FeedbackTaken(
            id=body.id, rating=body.rating, correction=body.correction is not None, comment=body.comment is not None
        )


class _ResponseBuilder:
    """How a reply is sent, counted, and followed up once the client has it."""

    def __init__(self, service: InferenceService, known: RequestContext) -> None:
        self.service = service
        self.context = known

    def complete(self, reply: InferenceResponse, body: ChatCompletion | Completion) -> Response:
        headers = {openapi.ROUTE_HEADER: format_route_header(body.compass)}

        async def settle() -> None:
            self._after_response(reply)

        return Response(body.model_dump_json(), media_type="application/json", headers=headers, background=BackgroundTask(settle))

    def stream(self, opened: ResponseStream, chunks: ChunkFormatter, *, counted: bool) -> Response:
        headers = {
            openapi.ROUTE_HEADER: format_route_header(to_compass_info(opened.route)),
            "cache-control": "no-cache",
            "x-accel-buffering": "no",  # a proxy in front would keep pieces back
        }
        sent = encode_events(opened, chunks, counted=counted, settle=self._after_response, refused=self.context.record_refusal)
        return EventStreamResponse(opened, sent, headers)

    def _after_response(self, reply: InferenceResponse) -> None:
        self.context.record_completion(reply)
        self.service.after_response(reply)
