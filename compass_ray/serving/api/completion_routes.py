"""The routes that clients of OpenAI's API know, and ``/v1/feedback``.

COMPASS, section 3.2.5. Not here: what is refused before a route runs (`guards`, `bodies`).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from starlette.background import BackgroundTask

from compass_ray.serving.answering import failures
from compass_ray.serving.answering.enquiries import Reply
from compass_ray.serving.answering.opened import OpenReply
from compass_ray.serving.answering.service import AnswerService
from compass_ray.serving.api import declared
from compass_ray.serving.api.chunks import ChatChunks, Chunks, CompletionChunks
from compass_ray.serving.api.conversions import (
    chat_enquiry,
    chat_reply,
    compass_info,
    completion_enquiry,
    completion_reply,
    route_header,
)
from compass_ray.serving.api.events import EventStream, events
from compass_ray.serving.api.exchange import Exchange, exchange_of
from compass_ray.serving.api.schema.chat import ChatCompletion, ChatRequest
from compass_ray.serving.api.schema.completions import Completion, CompletionRequest
from compass_ray.serving.api.schema.feedback import FeedbackRequest, FeedbackTaken
from compass_ray.serving.api.schema.models import ModelCard, ModelList, cards
from compass_ray.serving.monitoring.observations import Feedback

Conversation = Annotated[
    str | None,
    Header(
        alias="x-conversation-id",
        pattern="^[!-~]{1,128}$",
        description="a name of your own that all turns of a conversation share; they keep its language and version",
    ),
]


def router(service: AnswerService) -> APIRouter:
    """The routes over a service."""
    routes = APIRouter()
    _answering(routes, service)
    _models(routes, service)
    _feedback(routes, service)
    return routes


def _answering(routes: APIRouter, service: AnswerService) -> None:
    @routes.post("/v1/chat/completions", response_model=ChatCompletion, responses=declared.streamed())
    async def chat_completions(request: Request, body: ChatRequest, conversation: Conversation = None) -> Response:
        """Answer a conversation; ``stream`` gives server-sent events."""
        known = exchange_of(request)
        enquiry = chat_enquiry(body, conversation=conversation, key=known.key)
        ending = _Ending(service, known)
        if body.stream:
            opened = await service.open(enquiry)
            return ending.streamed(opened, ChatChunks(opened), counted=body.streams_usage)
        reply = await service.answer(enquiry)
        return ending.whole(reply, chat_reply(reply))

    @routes.post("/v1/completions", response_model=Completion, responses=declared.streamed())
    async def completions(request: Request, body: CompletionRequest, conversation: Conversation = None) -> Response:
        """Continue a text; ``stream`` gives server-sent events."""
        known = exchange_of(request)
        enquiry = completion_enquiry(body, conversation=conversation, key=known.key)
        ending = _Ending(service, known)
        if body.stream:
            opened = await service.open(enquiry)
            return ending.streamed(opened, CompletionChunks(opened), counted=body.streams_usage)
        reply = await service.answer(enquiry)
        return ending.whole(reply, completion_reply(reply))


def _models(routes: APIRouter, service: AnswerService) -> None:
    def named() -> list[ModelCard]:
        return cards(service.catalogue, service.router.languages)

    @routes.get("/v1/models", responses=declared.responses(*declared.READING))
    async def list_models() -> ModelList:
        """Every name that ``model`` may take."""
        await service.refresh()
        return ModelList(data=named())

    @routes.get("/v1/models/{name:path}", responses=declared.responses(*declared.READING, 404))
    async def retrieve_model(name: str) -> ModelCard:
        """One of them."""
        await service.refresh()
        for card in named():
            if card.id == name:
                return card
        raise failures.unknown_model(f"model {name[:100]!r} does not exist; GET /v1/models lists those that do")


def _feedback(routes: APIRouter, service: AnswerService) -> None:
    @routes.post("/v1/feedback", responses=declared.responses(*declared.WRITING))
    async def feedback(request: Request, body: FeedbackRequest) -> FeedbackTaken:
        """Say of a reply whether it was good, and what it should have been."""
        service.rate(Feedback(body.id, body.rating, body.correction, body.comment, exchange_of(request).key, service.clock()))
        return FeedbackTaken(
            id=body.id, rating=body.rating, correction=body.correction is not None, comment=body.comment is not None
        )


class _Ending:
    """How a reply is sent, counted, and followed up once the client has it."""

    def __init__(self, service: AnswerService, known: Exchange) -> None:
        self.service = service
        self.known = known

    def whole(self, reply: Reply, body: ChatCompletion | Completion) -> Response:
        headers = {declared.ROUTE_HEADER: route_header(body.compass)}

        async def settle() -> None:
            self._settle(reply)

        return Response(body.model_dump_json(), media_type="application/json", headers=headers, background=BackgroundTask(settle))

    def streamed(self, opened: OpenReply, chunks: Chunks, *, counted: bool) -> Response:
        headers = {
            declared.ROUTE_HEADER: route_header(compass_info(opened.route)),
            "cache-control": "no-cache",
            "x-accel-buffering": "no",  # a proxy in front would keep pieces back
        }
        sent = events(opened, chunks, counted=counted, settle=self._settle, refused=self.known.refused)
        return EventStream(opened, sent, headers)

    def _settle(self, reply: Reply) -> None:
        self.known.answered(reply)
        self.service.settle(reply)
