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
from compass_ray.models.language_id import UNKNOWN
from compass_ray.serving.registry import Catalogue
from compass_ray.serving.routing.conversation import ConversationMemory
from compass_ray.serving.routing.detection import Belief, Identifier, is_short, judge, kept, stays
from compass_ray.serving.routing.model_names import Asked, UnknownModelError, parse_model
from compass_ray.serving.routing.routes import Route, choose, fall_back
from compass_ray.serving.routing.scripts import prose

__all__ = ["Asked", "Route", "RouteRequest", "Router", "UnknownModelError", "fall_back"]

TURNS = 8
"""Most turns of the user that are read for a conversation's language, the last ones."""
_NOT_ASKED = Belief(None, None, "the prompt was not looked at")


@dataclass(frozen=True)
class RouteRequest:
    """What decides a route.

    ``turns`` are role and text, the last of role ``user`` being the prompt; ``conversation`` any name that its turns share;
    ``draw`` is in [0, 1), the same for all turns of a conversation, so that a canary answers all of them or none.
    """

    model: str
    turns: tuple[tuple[str, str], ...]
    conversation: str | None = None
    draw: float = 0.0


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
        automatic = parse_model(asked.model)[0] is Asked.AUTO
        belief = self._believe(asked) if automatic else _NOT_ASKED
        chosen = choose(asked.model, belief, catalogue, languages=self.languages, draw=asked.draw)
        if asked.conversation and chosen.language:
            self.memory.remember(asked.conversation, chosen.language)
        return chosen

    def _believe(self, asked: RouteRequest) -> Belief:
        texts = [prose(text) for role, text in asked.turns if role == "user"][-TURNS:]
        *earlier, prompt = texts or [""]
        spoken = self._spoken(earlier, asked.conversation) if is_short(prompt, self.config) else None
        return self._follow(prompt, spoken)

    def _spoken(self, turns: Sequence[str], conversation: str | None) -> str | None:
        """The language of the conversation so far: of its turns, else of the memory."""
        spoken: str | None = None
        for text in turns:
            spoken = self._follow(text, spoken).language or spoken
        return spoken or (self.memory.recall(conversation) if conversation else None)

    def _follow(self, text: str, spoken: str | None) -> Belief:
        """What the next turn of a conversation is in."""
        if spoken and stays(text, spoken, self.config):
            return kept(spoken)
        belief = self._judge(text)
        unsure = belief.language is None and is_short(text, self.config)
        return kept(spoken) if spoken and unsure else belief

    def _judge(self, text: str) -> Belief:
        found = self.identifier.identify([text], self.languages)[0] if text else UNKNOWN
        return judge(text, found, self.config)
