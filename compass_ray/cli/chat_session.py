"""One conversation with an endpoint of the OpenAI-compatible API, streamed, with the route of each reply."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

AUTO = "auto"


class ChatError(RuntimeError):
    """The endpoint refused a request, or broke off a reply."""


@dataclass(frozen=True)
class ChatRoute:
    """Which adapter answered and why, and what the reply took."""

    adapter: str
    reason: str
    tokens: int | None
    seconds: float

    def describe(self) -> str:
        """The route in one line."""
        tokens = "" if self.tokens is None else f", {self.tokens} tokens"
        return f"{self.adapter}: {self.reason}{tokens} in {self.seconds:.1f} s"


class ChatSession:
    """Keeps the turns of a conversation and sends them with each message."""

    def __init__(self, client: httpx.Client, model: str = AUTO, clock: Callable[[], float] = time.monotonic) -> None:
        """Start a conversation. ``client`` has the endpoint's URL and, if needed, the API key."""
        self.client, self.model = client, model
        self._clock = clock
        self.route: ChatRoute | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the turns."""
        self.turns: list[dict[str, str]] = []
        self._conversation = uuid.uuid4().hex

    def models(self) -> list[str]:
        """Valid values of `model`.

        Raises:
            ChatError: the endpoint refuses the request.
        """
        response = self.client.get("/v1/models")
        if response.is_error:
            raise ChatError(_refusal(response))
        return [card["id"] for card in response.json()["data"]]

    def send(self, text: str) -> Iterator[str]:
        """Send a message; yields the parts of the reply as they arrive. Then `route` says who answered.

        A message that fails is not part of the conversation.

        Raises:
            ChatError: the endpoint refuses the request, or breaks off the reply.
        """
        started, parts, info, tokens = self._clock(), list[str](), dict[str, Any](), None
        turns = [*self.turns, {"role": "user", "content": text}]
        for chunk in self._stream(turns):
            info = chunk.get("compass") or info
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            for choice in chunk.get("choices", ()):
                if part := choice["delta"].get("content"):
                    parts.append(part)
                    yield part
        self.turns = [*turns, {"role": "assistant", "content": "".join(parts)}]
        self.route = ChatRoute(
            info.get("adapter") or "base model", info.get("reason", "no reason"), tokens, self._clock() - started
        )

    def _stream(self, turns: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
        body = {"model": self.model, "messages": turns, "stream": True, "stream_options": {"include_usage": True}}
        headers = {"x-conversation-id": self._conversation}
        with self.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            if response.is_error:
                response.read()
                raise ChatError(_refusal(response))
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise ChatError(chunk["error"]["message"])
                    yield chunk


def _refusal(response: httpx.Response) -> str:
    try:
        return f"{response.status_code}: {response.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code}: the endpoint gave no reason; is it one of compass-ray?"
