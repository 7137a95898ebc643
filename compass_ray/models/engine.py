"""Generation for requests that want different adapters, in one batch that they join and leave at any token.

Key properties: a reply does not depend on its neighbours in the batch, up to rounding, and a sampled one only on its own
seed; a reply that has begun keeps the adapter version it began with, whatever is loaded meanwhile. Each step takes one
token of every reply under way and a stretch of the prompts that came in. Not a server: one thread calls it, no network.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compass_ray.models.adapter_layers import PreparedAdapter
from compass_ray.models.bank import AdapterBank
from compass_ray.models.base import BaseModel
from compass_ray.models.chat import encode_messages, encode_text
from compass_ray.models.errors import ModelError, TooLongError
from compass_ray.models.leases import Leases
from compass_ray.models.orders import Answer, Order, Piece, TokenScore
from compass_ray.models.routing import Wear
from compass_ray.models.row_cache import RowCache, positions_taken
from compass_ray.models.rows import Row
from compass_ray.models.sampling import Chosen, Drawing, seeded
from compass_ray.models.stepping import PROBE_TOKENS, Stepper

_MARGIN = 4
"""Times the longest token's characters that a token of a prompt may stand for, since a tokenizer may leave some out."""


@dataclass(frozen=True)
class Limits:
    """How much is decoded at once: rows, tokens of a row, prompt tokens a step, and GiB of keys and values."""

    rows: int = 32
    context: int = 4096
    prefill_tokens: int = 512
    kv_cache_gib: float = 4.0


@dataclass(frozen=True)
class Event:
    """What a step added to a reply; ``done`` is the whole of it, at its end."""

    ticket: int
    piece: Piece
    done: Answer | None = None


class Engine:
    """A base model, its resident adapters, and generation over both."""

    def __init__(self, base: BaseModel, limits: Limits | None = None) -> None:
        """Take over ``base`` until `close`.

        Raises:
            ModelError: its attention is not what is computed here, or not one row fits the key-value cache.
        """
        limits = limits or Limits()
        self.base = base
        self.encoder = copy.deepcopy(base.tokenizer)
        self._most_characters = _MARGIN * max(map(len, base.tokenizer.get_vocab()))
        self.bank = AdapterBank(base)
        self.context = min(max(limits.context, PROBE_TOKENS), positions_taken(base.model))
        cache = RowCache(base, rows=limits.rows, context=self.context, gib=limits.kv_cache_gib)
        self.stepper = Stepper(base, self.bank, cache, limits.prefill_tokens)
        self._waiting: deque[Row] = deque()
        self._leases = Leases(self.bank.release)
        self._next = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the resident adapters."""
        return self.bank.names

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._waiting or self.stepper.rows)

    def load(self, name: str, folder: Path) -> None:
        """Make an adapter resident; of one of the same name, replies that have begun keep the old one.

        Raises:
            ModelError: the directory is damaged or was made for another base; what was loaded goes on.
        """
        self.install(name, self.bank.prepare(Path(folder)))

    def install(self, name: str, prepared: PreparedAdapter) -> None:
        """The second half of `load`, which takes no time; ``bank.prepare`` may run in another thread."""
        before = self.bank.slot(name) if name in self.names else None
        self.bank.install(name, prepared)
        if before is not None:
            self._leases.retire(before)

    def unload(self, name: str) -> None:
        """Forget an adapter; replies that have begun keep it.

        Raises:
            ModelError: it is not loaded.
        """
        self._leases.retire(self.bank.unload(name))

    def submit(self, order: Order) -> int:
        """Let a request wait for its place, and give the ticket that its events bear.

        Raises:
            ModelError: an adapter that is not loaded, a prompt too long, or sampling values out of range.
        """
        row = self._row(order)
        self._leases.take(row.wear)
        self._waiting.append(row)
        return row.ticket

    def cancel(self, ticket: int) -> None:
        """Give a request's place to others; nothing more comes of it."""
        waiting = next((row for row in self._waiting if row.ticket == ticket), None)
        row = waiting or self.stepper.drop(ticket)
        if waiting:
            self._waiting.remove(waiting)
        if row:
            self._leases.give_back(row.wear)

    def step(self) -> list[Event]:
        """One token of every reply under way, and the next stretch of the prompts."""
        while self._waiting and self.stepper.free:
            self.stepper.join(self._waiting.popleft())
        return [self._event(row, chosen) for row, chosen in self.stepper.step()]

    def generate(self, orders: Sequence[Order]) -> list[Answer]:
        """A reply to each request, in order, adapters mixed.

        Raises:
            ModelError: a request that cannot be followed; none is answered then.
        """
        tickets: list[int] = []
        try:
            for order in orders:
                tickets.append(self.submit(order))
            done: dict[int, Answer] = {}
            while len(done) < len(tickets):
                done.update({event.ticket: event.done for event in self.step() if event.done})
        except BaseException:
            for ticket in tickets:
                self.cancel(ticket)
            raise
        return [done[ticket] for ticket in tickets]

    def prompt(self, order: Order) -> list[int]:
        """Token ids that the request prefills. For one thread at a time, which need not be that of the other calls.

        Raises:
            ModelError: the chat template refuses its messages, or there are more of them than could ever fit.
        """
        characters = len(order.text or "") + sum(len(text) for _, text in order.messages)
        if characters > self.context * self._most_characters:
            raise TooLongError(f"the conversation has {characters} characters, more than {self.context} tokens hold; shorten it")
        if order.ids is not None:
            return list(order.ids)
        if order.text is not None:
            return encode_text(self.encoder, order.text)
        messages = [{"role": role, "content": text} for role, text in order.messages]
        return encode_messages(self.encoder, messages, 1 << 30)

    def close(self) -> None:
        """Give the base back as it was, without adapters; what is under way is lost."""
        self._waiting.clear()
        self.stepper.close()
        self.bank.close()

    def _row(self, order: Order) -> Row:
        _check(order)
        prompt = self.prompt(order)
        if not prompt:
            raise ModelError("the prompt is empty; give at least one token of text")
        if len(prompt) + order.max_tokens > self.context:
            raise TooLongError(
                f"the conversation has {len(prompt)} tokens and {order.max_tokens} were asked for, but the base model "
                f"takes {self.context} here; shorten one of them"
            )
        self._next += 1
        drawing = Drawing(seeded(order.seed), order.temperature, order.top_p, order.logprobs)
        stops = [text for text in order.stop if text]
        return Row(self._next, prompt, order.adapter, self._wear(order), order.max_tokens, drawing, self.base.tokenizer, stops)

    def _wear(self, order: Order) -> Wear:
        first = self.bank.slot(order.adapter) if order.adapter else None
        if order.blend is None:
            return () if first is None else ((first, 1.0),)
        name, share = order.blend
        second = (self.bank.slot(name), share)
        return (second,) if first is None else ((first, 1.0 - share), second)

    def _event(self, row: Row, chosen: Chosen) -> Event:
        ended = chosen.token in self.stepper.ends
        scored = row.drawing.listed is not None and not ended
        piece = Piece(row.take(chosen, ended=ended), (self._score(chosen),) if scored else ())
        row.scores.extend(piece.scores)
        if not row.done:
            return Event(row.ticket, piece)
        self.stepper.drop(row.ticket)
        self._leases.give_back(row.wear)
        return Event(row.ticket, piece, _answer(row))

    def _score(self, chosen: Chosen) -> TokenScore:
        def text(token: int) -> str:
            return str(self.base.tokenizer.decode([token]))

        return TokenScore(text(chosen.token), chosen.logprob, tuple((text(t), value) for t, value in chosen.likeliest))


def _check(order: Order) -> None:
    if order.max_tokens < 1:
        raise ModelError(f"max_tokens is {order.max_tokens}; give 1 or more")
    if order.temperature < 0 or not 0 < order.top_p <= 1:
        raise ModelError(f"temperature is {order.temperature} and top_p {order.top_p}; give 0 or more, and above 0 up to 1")
    if order.blend and not 0 < order.blend[1] < 1:
        raise ModelError(f"the share of {order.blend[0]} is {order.blend[1]}; give one between 0 and 1")


def _answer(row: Row) -> Answer:
    return Answer(
        text=row.text.text,
        adapter=row.adapter,
        prompt_tokens=len(row.prompt),
        completion_tokens=row.tokens,
        finish_reason="stop" if row.ended else "length",
        mean_nll=-sum(row.logprobs) / len(row.logprobs) if row.logprobs else None,
        scores=tuple(row.scores),
    )
