"""From a request's turns to the adapter that answers: the identifier, the memory of conversations and the settings together.

Key property: the decision is made of pure functions (`scripts`, `detection`, `routes`); here they are given what they need, so
that a request without a conversation has the same route whatever came before it. The language of a conversation is that of its
last prompt that was believed: read from the request's earlier turns, else remembered. COMPASS, sections 3.2.5 and 4.2. It loads
no adapter.
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
"""Most turns of the user that are read for a conversation's language, the last ones."""
_NOT_IDENTIFIED = LanguageDecision(None, None, "the prompt was not looked at")


@dataclass(frozen=True)
class RouteRequest:
    """What decides a route.

    ``turns`` are role and text, the last of role ``user`` being the prompt; ``conversation`` any name that its turns share;
    ``draw`` is in [0, 1), the same for all turns of a conversation, so that a canary answers all of them or none.
    """

    model: str
    turns: tuple[tuple[str, str], ...]
    conversation: str | None = None
    canary_draw: float = 0.0


class Router:
    """Routes requests. For one thread."""

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

    def route(self, asked: RouteRequest, catalogue: Catalogue) -> Route:
        """Choose who answers, and remember the conversation's language.

        Raises:
            UnknownModelError: ``model`` names nothing that is here.
        """
        automatic = parse_model(asked.model)[0] is ModelTarget.AUTO
        belief = self._decide(asked) if automatic else _NOT_IDENTIFIED
        chosen = choose_route(asked.model, belief, catalogue, languages=self.languages, draw=asked.canary_draw)
        if asked.conversation and chosen.language:
            self.memory.remember(asked.conversation, chosen.language)
        return chosen

    def _decide(self, asked: RouteRequest) -> LanguageDecision:
        texts = [extract_prose(text) for role, text in asked.turns if role == "user"][-MAX_TURNS:]
        *earlier, prompt = texts or [""]
        spoken = self._conversation_language(earlier, asked.conversation) if is_short(prompt, self.config) else None
        return self._decide_turn(prompt, spoken)

    def _conversation_language(self, turns: Sequence[str], conversation: str | None) -> str | None:
        """The language of the conversation so far: of its turns, else of the memory."""
        spoken: str | None = None
        for text in turns:
            spoken = self._decide_turn(text, spoken).language or spoken
        return spoken or (self.memory.recall(conversation) if conversation else None)

    def _decide_turn(self, text: str, spoken: str | None) -> LanguageDecision:
        """What the next turn of a conversation is in."""
        if spoken and keeps_conversation_language(text, spoken, self.config):
            return from_conversation(spoken)
        belief = self._identify(text)
        unsure = belief.language is None and is_short(text, self.config)
        return from_conversation(spoken) if spoken and unsure else belief

    def _identify(self, text: str) -> LanguageDecision:
        found = self.identifier.identify([text], self.languages)[0] if text else UNKNOWN_LANGUAGE
        return decide_language(text, found, self.config)
