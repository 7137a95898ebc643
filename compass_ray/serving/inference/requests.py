"""One request in the service's own words, whichever endpoint took it, and what came of it.

Key property: plain frozen records; the draw that decides about a canary is a stable hash, so a conversation keeps its version.
COMPASS, section 3.2.5. Not here: HTTP, and who answers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from compass_ray.serving.inference.backend import GenerationOutput, GenerationRequest
from compass_ray.serving.routing.router import Route, RouteRequest

_ROLES = {"developer": "system"}


@dataclass(frozen=True)
class InferenceRequest:
    """A conversation or a text to continue, and how; ``id`` is the reply's."""

    id: str
    model: str
    turns: tuple[tuple[str, str], ...]
    """Role and text of each turn; a text to continue is one turn of the user."""
    chat: bool = True
    """Whether the turns go through the chat template, or the text is continued as it stands."""
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    conversation: str | None = None
    key: str | None = None
    """Short hash of the API key that asked."""

    @property
    def prompt(self) -> str:
        """The last user turn, which is routed and monitored."""
        return [text for role, text in self.turns if role == "user"][-1]

    @property
    def is_single_turn(self) -> bool:
        """Whether that turn is all there is, and is answered as a turn."""
        return self.chat and len(self.turns) == 1

    @property
    def conversation_key(self) -> str | None:
        """The conversation's name, made the key's own: nobody joins another's by its name."""
        return None if self.conversation is None else f"{self.key or ''}/{self.conversation}"

    @property
    def route_request(self) -> RouteRequest:
        """What the router is asked."""
        return RouteRequest(self.model, self.turns, self.conversation_key, stable_fraction(self.conversation_key or self.id))

    def to_generation_request(self, route: Route, most: int) -> GenerationRequest:
        """What the backend is asked, along a route; ``most`` bounds the reply's tokens."""
        return GenerationRequest(
            messages=tuple((_ROLES.get(role, role), text) for role, text in self.turns) if self.chat else (),
            adapter=str(route.adapter) if route.adapter else None,
            max_tokens=min(self.max_tokens or most, most),
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
            text=None if self.chat else self.prompt,
            blend=(str(route.blend[0]), route.blend[1]) if route.blend else None,
            logprobs=self.logprobs,
        )


@dataclass(frozen=True)
class InferenceResponse:
    """An enquiry that was answered to its end; times in seconds, ``began`` since the epoch."""

    request: InferenceRequest
    route: Route
    output: GenerationOutput
    started_at: float
    seconds: float
    first_token_seconds: float | None = None


def stable_fraction(name: str) -> float:
    """A number in [0, 1), the same for the same name in every process.

    >>> stable_fraction("conversation-1") == stable_fraction("conversation-1") < 1.0
    True
    """
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=6).digest()) / 2**48
