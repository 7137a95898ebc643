"""One inference request in the service's own form, whichever endpoint received it, and its response.

Frozen records. The canary draw is a keyed hash of the conversation, so a conversation keeps its version.
COMPASS, section 3.2.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.serving.inference.backend import GenerationOutput, GenerationRequest
from compass_ray.serving.inference.client_hashes import ClientHashes
from compass_ray.serving.routing.router import Route, RouteRequest

_ROLES = {"developer": "system"}


@dataclass(frozen=True)
class InferenceRequest:
    """A conversation or a text to continue, with sampling parameters; ``id`` is the response's id."""

    id: str
    model: str
    turns: tuple[tuple[str, str], ...]
    """Role and text of each turn. A text to continue is one user turn."""
    chat: bool = True
    """Whether the turns go through the chat template, or the text is continued unchanged."""
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    conversation: str | None = None
    key: str | None = None
    """Short hash of the client's API key."""
    client: str | None = None
    """Pseudonym of the client, from `client_hashes`."""
    token_ids: tuple[int, ...] | None = None
    """The text to continue as token ids; then the text is empty."""
    echo: bool = False
    omits_reply: bool = False
    """The response is the prompt alone."""
    store: bool = True
    """Whether the monitor and shadow versions get the prompt."""

    @property
    def prompt(self) -> str:
        """The last user turn, which is routed and monitored."""
        return [text for role, text in self.turns if role == "user"][-1]

    @property
    def is_single_turn(self) -> bool:
        """Whether the prompt is the only turn of a chat."""
        return self.chat and len(self.turns) == 1

    @property
    def conversation_key(self) -> str | None:
        """The conversation id, scoped to the API key, so that clients cannot join the conversations of others."""
        return None if self.conversation is None else f"{self.key or ''}/{self.conversation}"

    def to_route_request(self, hashes: ClientHashes) -> RouteRequest:
        """The input of the router."""
        return RouteRequest(self.model, self.turns, self.conversation_key, hashes.draw(self.conversation_key or self.id))

    def to_generation_request(self, route: Route, max_tokens: int) -> GenerationRequest:
        """The input of the backend for a route. ``max_tokens`` limits the response."""
        return GenerationRequest(
            messages=tuple((_ROLES.get(role, role), text) for role, text in self.turns) if self.chat else (),
            adapter=str(route.adapter) if route.adapter else None,
            max_tokens=min(self.max_tokens or max_tokens, max_tokens),
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
            text=None if self.chat or self.token_ids is not None else self.prompt,
            prompt_token_ids=self.token_ids,
            echo=self.echo,
            blend=(str(route.blend[0]), route.blend[1]) if route.blend else None,
            logprobs=self.logprobs,
        )


@dataclass(frozen=True)
class InferenceResponse:
    """A completed request; times in seconds, ``started_at`` in Unix seconds."""

    request: InferenceRequest
    route: Route
    output: GenerationOutput
    started_at: float
    seconds: float
    first_token_seconds: float | None = None
