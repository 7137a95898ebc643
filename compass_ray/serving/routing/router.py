"""The router: from a request's turns to its route, with the identifier, the memory of conversations and the settings.

The decisions are pure functions in `scripts`, `language_decision` and `route_selection`. A request without a conversation id
has the same route whatever came before. The language of a conversation is that of its last accepted prompt: read from the
request's earlier turns, otherwise from the memory. Loads no adapter. COMPASS, sections 3.2.5 and 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compass_ray.config import IdentifierConfig
from compass_ray.models.language_id import UNKNOWN_LANGUAGE
from compass_ray.registry import Catalogue
from compass_ray.serving.routing.conversation import ConversationMemory
from compass_ray.serving.routing.language_decision import (
    Identifier,
    LanguageDecision,
    decide_language,
    from_conversation,
    is_short,
    keeps_conversation_language,
)
from compass_ray.serving.routing.model_names import ModelTarget, UnknownModelError, parse_model
from compass_ray.serving.routing.route_selection import Route, choose_route, fall_back
from compass_ray.serving.routing.scripts import extract_prose

__all__ = ["ModelTarget", "Route", "RouteRequest", "Router", "UnknownModelError", "fall_back"]

MAX_TURNS = 8
"""Maximum number of user turns, the last ones, that determine a conversation's language."""
_NOT_IDENTIFIED = LanguageDecision(None, None, "the prompt's language was not identified")


@dataclass(frozen=True)
class RouteRequest:
    """The input of a routing decision.

    ``turns`` are (role, text); the last one with role ``user`` is the prompt. ``conversation`` is an id that all its turns share.
    ``canary_draw`` is in [0, 1) and equal for all turns of a conversation, so a canary answers all of them or none.
    """

    model: str
    turns: tuple[tuple[str, str], ...]
    conversation: str | None = None
    canary_draw: float = 0.0


class Router:
    """Routes requests. Not thread-safe."""

    def __init__(
        self,
        identifier: Identifier,
        *,
        languages: Sequence[str],
        config: IdentifierConfig,
        memory: ConversationMemory,
    ) -> None:
        """Combine the parts; ``languages`` are those of the run."""
        self.identifier = identifier
        self.languages = tuple(languages)
        self.config = config
        self.memory = memory

    def route(self, request: RouteRequest, catalogue: Catalogue) -> Route:
        """Select the route, and store the conversation's language.

        Raises:
            UnknownModelError: ``model`` does not exist.
        """
        automatic = parse_model(request.model)[0] is ModelTarget.AUTO
        decision = self._decide(request) if automatic else _NOT_IDENTIFIED
        route = choose_route(request.model, decision, catalogue, languages=self.languages, canary_draw=request.canary_draw)
        if request.conversation and route.language:
            self.memory.remember(request.conversation, route.language)
        return route

    def _decide(self, request: RouteRequest) -> LanguageDecision:
        texts = [extract_prose(text) for role, text in request.turns if role == "user"][-MAX_TURNS:]
        *earlier, prompt = texts or [""]
        current = self._conversation_language(earlier, request.conversation) if is_short(prompt, self.config) else None
        return self._decide_turn(prompt, current)

    def _conversation_language(self, turns: Sequence[str], conversation: str | None) -> str | None:
        """The conversation's language so far: from its turns, otherwise from the memory."""
        current: str | None = None
        for text in turns:
            current = self._decide_turn(text, current).language or current
        return current or (self.memory.recall(conversation) if conversation else None)

    def _decide_turn(self, text: str, current: str | None) -> LanguageDecision:
        """The language of the next turn of a conversation."""
        if current and keeps_conversation_language(text, current, self.config):
            return from_conversation(current)
        decision = self._identify(text)
        unsure = decision.language is None and is_short(text, self.config)
        return from_conversation(current) if current and unsure else decision

    def _identify(self, text: str) -> LanguageDecision:
        prediction = self.identifier.identify([text], self.languages)[0] if text else UNKNOWN_LANGUAGE
        return decide_language(text, prediction, self.config)
