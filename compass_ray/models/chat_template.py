"""Encode conversations to token ids with the base model's chat template (COMPASS, section 3.2.4).

The prompt ids are exactly those that serving prefills (`chat_layout`). Only replies and their end-of-turn token have a loss. No
tensors and no padding.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from compass_ray.models.chat_layout import ChatLayout, Message, find_layout, normalize_messages, strip_reasoning
from compass_ray.models.errors import ModelError
from compass_ray.texts import is_blank

IGNORE_INDEX = -100
"""Label of a position without loss."""
LossTurns = Literal["all", "last"]
"""Which replies of a conversation have a loss."""


class TokenDistributions(NamedTuple):
    """What another model gives as the next token, for each of k tokens with a loss."""

    token_ids: npt.NDArray[np.int64]
    """int64[k, m]: its likeliest tokens."""
    log_probs: npt.NDArray[np.float32]
    """float32[k, m]: their log-probabilities."""


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of one row, and its labels: the id itself on replies with a loss, otherwise `IGNORE_INDEX`."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    weight: float = 1.0
    teacher: TokenDistributions | None = field(default=None, compare=False)
    """What the row teaches instead of its labels."""

    @property
    def prompt_length(self) -> int:
        """Tokens before the first reply with a loss."""
        return next((i for i, label in enumerate(self.labels) if label != IGNORE_INDEX), len(self.labels))

    @property
    def num_reply_tokens(self) -> int:
        """Tokens with a loss."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class TrainingRow:
    """One instruction row for training; ``weight`` scales its loss.

    ``messages`` are the role and content of every turn of a conversation, up to and with ``response``; empty for one turn.
    """

    prompt: str
    response: str
    weight: float = 1.0
    messages: tuple[tuple[str, str], ...] = ()

    def turns(self) -> list[Message]:
        """All messages; the last one is the response."""
        turns = self.messages or (("user", self.prompt), ("assistant", self.response))
        return [{"role": role, "content": content} for role, content in turns]


def encode_prompt(tokenizer: Any, prompt: str, max_tokens: int) -> list[int]:
    """Ids of a single user prompt, up to the start of the reply; at most ``max_tokens``, truncated on the left."""
    return encode_messages(tokenizer, [{"role": "user", "content": prompt}], max_tokens)


def encode_messages(tokenizer: Any, messages: Sequence[Message], max_tokens: int) -> list[int]:
    """Ids of a conversation, up to the start of the next reply; at most ``max_tokens``, truncated on the left.

    Raises:
        ModelError: the tokenizer has no chat template, or the template rejects, leaves out or changes messages.
    """
    return [token for part in _encode_parts(tokenizer, messages) for token in part.ids][-max_tokens:]


def render_messages(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The text of a conversation, up to the start of the next reply; `encode_messages` returns its ids.

    Raises:
        ModelError: as `encode_messages`.
    """
    return "".join(text for text, _ in _split_messages(tokenizer, messages))


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text to continue, with the tokenizer's start tokens."""
    return list(tokenizer(text)["input_ids"])


def check_token_ids(ids: Sequence[int], vocabulary: int) -> list[int]:
    """The ids of a prompt, if the model has all of them.

    Raises:
        ModelError: an id is not below ``vocabulary``, or is negative.
    """
    if ids and not (min(ids) >= 0 and max(ids) < vocabulary):
        raise ModelError(f"the prompt has token ids from {min(ids)} to {max(ids)}; the model has 0 to {vocabulary - 1}")
    return list(ids)


def encode_example(tokenizer: Any, prompt: str, response: str, max_tokens: int, *, weight: float = 1.0) -> EncodedExample:
    """`encode_conversation` of one prompt and its response."""
    return encode_conversation(tokenizer, TrainingRow(prompt, response).turns(), max_tokens, weight=weight)


def encode_conversation(
    tokenizer: Any, messages: Sequence[Message], max_tokens: int, *, loss_turns: LossTurns = "all", weight: float = 1.0
) -> EncodedExample:
    """Ids and labels of a conversation that ends with a reply, at most ``max_tokens``.

    A conversation that is too long first loses whole early turns, but not its system prompt. Then it loses its system prompt and
    the start of its last prompt, down to half of ``max_tokens``. Then it loses the end of its reply with the end of turn, so that
    a truncated reply is never trained as a finished one.

    Raises:
        ModelError: no usable chat template (see `encode_messages`), an empty response, or ``max_tokens`` below 2.
    """
    if max_tokens < 2:
        raise ModelError(f"max_tokens is {max_tokens}; a row needs at least 2, so raise train.max_tokens")
    if is_blank(messages[-1]["content"]):
        raise ModelError("a row has an empty response; remove such rows from the pool")
    parts = _fit_conversation(tokenizer, messages, max_tokens)
    if _count_tokens(parts) > max_tokens:
        prompt, reply = [token for part in parts[:-1] for token in part.ids], parts[-1].ids
        prompt = prompt[-max(max_tokens - len(reply), min(len(prompt), max_tokens // 2)) :]
        parts = [_Part(prompt, False), _Part(reply[: max_tokens - len(prompt)], True)]
    return _join_parts(parts, loss_turns, weight)


def count_end_tokens(tokenizer: Any, ids: Sequence[int]) -> int | None:
    """Tokens of the end of turn at the end of a reply; 0 if that end was cut off, None if the template has no end of turn.

    A token that joins the end of the reply's text with white space of the template belongs to the reply.
    """
    end = find_layout(tokenizer, ("user",)).end_of_turn
    ends = _ids(tokenizer, end) if end else [token for token in (tokenizer.eos_token_id,) if token is not None]
    matches = (found == expected for found, expected in zip(reversed(ids), reversed(ends), strict=False))
    return sum(takewhile(bool, matches)) if ends else None


def encode_rows(
    tokenizer: Any, rows: Iterable[TrainingRow], max_tokens: int, loss_turns: LossTurns = "all"
) -> list[EncodedExample]:
    """`encode_conversation` of every row, in order, with its weight."""
    return [encode_conversation(tokenizer, row.turns(), max_tokens, loss_turns=loss_turns, weight=row.weight) for row in rows]


class _Part(NamedTuple):
    """Ids of one reply, or of all text between two replies."""

    ids: list[int]
    is_reply: bool


def _join_parts(parts: Sequence[_Part], loss_turns: LossTurns, weight: float) -> EncodedExample:
    ids, labels = list[int](), list[int]()
    for index, part in enumerate(parts):
        has_loss = part.is_reply and (loss_turns == "all" or index == len(parts) - 1)
        ids += part.ids
        labels += part.ids if has_loss else [IGNORE_INDEX] * len(part.ids)
    return EncodedExample(tuple(ids), tuple(labels), weight)


def _fit_conversation(tokenizer: Any, messages: Sequence[Message], max_tokens: int) -> list[_Part]:
    """The parts of the conversation, or of the most of its turns that fit; the last turn alone if nothing fits."""
    parts = _encode_parts(tokenizer, messages[:-1], messages[-1])
    shorter = _shorten(messages)
    if _count_tokens(parts) <= max_tokens or not shorter:
        return parts

    def fits(turns: Sequence[Message]) -> bool:
        return _count_tokens(_encode_parts(tokenizer, turns[:-1], turns[-1])) <= max_tokens

    turns = shorter[min(bisect_left(shorter, True, key=fits), len(shorter) - 1)]
    return _encode_parts(tokenizer, turns[:-1], turns[-1])


def _shorten(messages: Sequence[Message]) -> list[list[Message]]:
    """The conversation without its first turn, without its first two, and so on; at last without its system prompt."""
    first = next(i for i, message in enumerate(messages) if message["role"] != "system")
    system, users = list(messages[:first]), [i for i, message in enumerate(messages) if message["role"] == "user"]
    shorter = [[*system, *messages[i:]] for i in users if i > first]
    return [*shorter, list(messages[users[-1] :])] if system and users else shorter


def _count_tokens(parts: Sequence[_Part]) -> int:
    return sum(len(part.ids) for part in parts)


def _encode_parts(tokenizer: Any, messages: Sequence[Message], reply: Message | None = None) -> list[_Part]:
    """Ids of all texts before, between and after replies, each tokenized alone; ``reply``, if given, is the last part.

    Earlier replies are parts too, so a conversation has the same ids in training and in serving.
    """
    parts = [_Part(_ids(tokenizer, text), is_reply) for text, is_reply in _split_messages(tokenizer, messages)]
    if reply is None:
        return parts
    layout = _layout_of(tokenizer, normalize_messages(tokenizer, messages))
    text = layout.slots[-1].trim(strip_reasoning(tokenizer, reply))
    ids = _ids(tokenizer, layout.reply_start + text + layout.end_of_turn)
    ends = [] if layout.end_of_turn or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*parts, _Part([*ids, *ends], True)]


def _split_messages(tokenizer: Any, messages: Sequence[Message]) -> Iterator[tuple[str, bool]]:
    turns = normalize_messages(tokenizer, messages)
    return _split_replies(_layout_of(tokenizer, turns), turns)


def _layout_of(tokenizer: Any, turns: Sequence[Message]) -> ChatLayout:
    return find_layout(tokenizer, tuple(message["role"] for message in turns))


def _split_replies(layout: ChatLayout, messages: Sequence[Message]) -> Iterator[tuple[str, bool]]:
    """The texts of a conversation up to its next reply, and whether each is an earlier reply with its end of turn."""
    text, reply = "", None
    for literal, slot in zip(layout.literals, layout.slots, strict=False):
        if reply is not None:
            end = layout.end_of_turn if literal.startswith(layout.end_of_turn) else ""
            yield reply + end, True
            literal, reply = literal.removeprefix(end), None
        text += literal
        if slot.turn == len(messages):
            break
        content = slot.trim(messages[slot.turn]["content"])
        if messages[slot.turn]["role"] != "assistant":
            text += content
            continue
        start = layout.reply_start if text.endswith(layout.reply_start) else ""
        yield text.removesuffix(start), False
        text, reply = "", start + content
    yield text, False


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
