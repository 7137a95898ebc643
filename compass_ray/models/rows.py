"""One request on its way through the batch: its prompt, what it wears, and what was generated. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compass_ray.models.orders import TokenScore
from compass_ray.models.reply_text import ReplyText
from compass_ray.models.routing import Wear
from compass_ray.models.sampling import Chosen, Drawing


class Row:
    """A request and its reply so far."""

    def __init__(
        self,
        ticket: int,
        prompt: Sequence[int],
        adapter: str | None,
        wear: Wear,
        max_tokens: int,
        drawing: Drawing,
        tokenizer: Any,
        stops: Sequence[str] = (),
    ) -> None:
        """Start before the first token of the prompt."""
        self.ticket = ticket
        self.prompt = list(prompt)
        self.adapter = adapter
        self.wear = wear
        self.max_tokens = max_tokens
        self.drawing = drawing
        self.text = ReplyText(tokenizer, stops)
        self.read = 0
        """Tokens whose keys and values are in the cache."""
        self.last = 0
        """The token that was chosen last."""
        self.tokens = 0
        self.logprobs: list[float] = []
        self.scores: list[TokenScore] = []
        self.ended = False
        """By an end token or a stop text."""

    @property
    def done(self) -> bool:
        """Whether nothing more is to be generated."""
        return self.ended or len(self.logprobs) >= self.max_tokens

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are not in the cache yet."""
        return max(len(self.prompt) - self.read, 0)

    def take(self, chosen: Chosen, *, ended: bool) -> str:
        """Follow a token, ``ended`` if it is one that ends the turn, and give the text that became certain."""
        self.last = chosen.token
        self.logprobs.append(chosen.logprob)
        text = ""
        if not ended:
            self.tokens += 1
            text = self.text.add(chosen.token)
        self.ended = ended or self.text.stopped
        if self.done:
            text += self.text.finish()
            self.ended = ended or self.text.stopped
        return text
