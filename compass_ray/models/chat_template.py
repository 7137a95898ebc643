"""Prompt and response to token ids through the base model's chat template (COMPASS, section 3.2.4).

Key property: the prompt's ids are exactly those that serving prefills, and only the response, with the token that ends
its turn, carries loss. Not a trainer: no tensors, no padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from compass_ray.models.errors import ModelError

IGNORE_INDEX = -100
"""Label of a position without loss."""


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of one row and its labels: `IGNORED` on the prompt, the id itself on the response."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    weight: float = 1.0

    @property
    def prompt_length(self) -> int:
        """Tokens before the response."""
        return sum(1 for label in self.labels if label == IGNORE_INDEX)

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class TrainingRow:
    """One instruction row to learn from; ``weight`` scales its loss."""

    prompt: str
    response: str
    weight: float = 1.0


def encode_prompt(tokenizer: Any, prompt: str, max_tokens: int) -> list[int]:
    """Ids of a lone user prompt, up to where the reply begins; at most ``max_tokens``, cut from the left."""
    return encode_messages(tokenizer, [{"role": "user", "content": prompt}], max_tokens)


def encode_messages(tokenizer: Any, messages: Sequence[Mapping[str, str]], max_tokens: int) -> list[int]:
    """Ids of a conversation, up to where the next reply begins; at most ``max_tokens``, cut from the left.

    Raises:
        ModelError: no chat template, or one that refuses these messages.
    """
    text = _render(tokenizer, messages, reply=True)
    return _ids(tokenizer, text)[-max_tokens:]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text to be continued as it stands, with what the tokenizer begins every text with."""
    return list(tokenizer(text)["input_ids"])


def encode_example(tokenizer: Any, prompt: str, response: str, max_tokens: int, *, weight: float = 1.0) -> EncodedExample:
    """Ids and labels of one row, at most ``max_tokens``.

    Too long a row loses the start of its prompt first, down to half of ``max_tokens``; only then the end of its
    response, together with the end of turn, so that a cut reply is never taught as a finished one.

    Raises:
        ModelError: no chat template, an empty response, or fewer than 2 tokens allowed.
    """
    if max_tokens < 2:
        raise ModelError(f"max_tokens is {max_tokens}; a row needs 2 at least, set train.max_tokens higher")
    messages = [{"role": "user", "content": prompt}]
    start = _render(tokenizer, messages, reply=True)
    reply = _response_ids(tokenizer, messages, start, response)
    before = _ids(tokenizer, start)
    room = max(max_tokens - len(reply), min(len(before), max_tokens // 2))
    before = before[-room:]
    reply = reply[: max_tokens - len(before)]
    return EncodedExample(tuple(before + reply), tuple([IGNORE_INDEX] * len(before) + reply), weight)


def encode_rows(tokenizer: Any, rows: Iterable[TrainingRow], max_tokens: int) -> list[EncodedExample]:
    """`encode_example` of every row, in order, with its weight."""
    return [encode_example(tokenizer, row.prompt, row.response, max_tokens, weight=row.weight) for row in rows]


def _response_ids(tokenizer: Any, messages: list[dict[str, str]], start: str, response: str) -> list[int]:
    whole = _render(tokenizer, [*messages, {"role": "assistant", "content": response}], reply=False)
    reply = _ids(tokenizer, whole[len(start) :] if whole.startswith(start) else response)
    end = tokenizer.eos_token_id
    if end is not None:
        last = len(reply) - 1 - reply[::-1].index(end) if end in reply else len(reply)
        reply = [*reply[:last], end]
    if not response.strip() or not reply:
        raise ModelError("a row has an empty response; leave such rows out of the pool")
    return reply


def _render(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, reply: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"the tokenizer of {getattr(tokenizer, 'name_or_path', '') or 'the base model'!r} has no chat template; use an "
            f"instruction-tuned base model, or put a chat_template.jinja beside its tokenizer"
        )
    try:
        rendered = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=reply)
    except TemplateError as error:
        roles = [message.get("role") for message in messages]
        raise ModelError(f"the chat template refuses messages with roles {roles}: {error}") from error
    return str(rendered)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
