"""Encode prompt and response to token ids with the base model's chat template (COMPASS, section 3.2.4).

The prompt ids are exactly those that serving prefills. Only the response and its end-of-turn token have a loss. No tensors and
no padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from compass_ray.models.errors import ModelError
from compass_ray.texts import is_blank

IGNORE_INDEX = -100
"""Label of a position without loss."""


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of one row, and its labels: `IGNORE_INDEX` on the prompt, the id itself on the response."""

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
    """One instruction row for training; ``weight`` scales its loss."""

    prompt: str
    response: str
    weight: float = 1.0


def encode_prompt(tokenizer: Any, prompt: str, max_tokens: int) -> list[int]:
    """Ids of a single user prompt, up to the start of the reply; at most ``max_tokens``, truncated on the left."""
    return encode_messages(tokenizer, [{"role": "user", "content": prompt}], max_tokens)


def encode_messages(tokenizer: Any, messages: Sequence[Mapping[str, str]], max_tokens: int) -> list[int]:
    """Ids of a conversation, up to the start of the next reply; at most ``max_tokens``, truncated on the left.

    Raises:
        ModelError: the tokenizer has no chat template, or the template rejects the messages.
    """
    text = _render(tokenizer, messages, reply=True)
    return _ids(tokenizer, text)[-max_tokens:]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text to continue, with the tokenizer's start tokens."""
    return list(tokenizer(text)["input_ids"])


def encode_example(tokenizer: Any, prompt: str, response: str, max_tokens: int, *, weight: float = 1.0) -> EncodedExample:
    """Ids and labels of one row, at most ``max_tokens``.

    A row that is too long first loses the start of its prompt, down to half of ``max_tokens``. Then it loses the end of its
    response with the end of turn, so that a truncated reply is never trained as a finished one.

    Raises:
        ModelError: no chat template, an empty response, or ``max_tokens`` below 2.
    """
    if max_tokens < 2:
        raise ModelError(f"max_tokens is {max_tokens}; a row needs at least 2, so raise train.max_tokens")
    messages = [{"role": "user", "content": prompt}]
    prompt_text = _render(tokenizer, messages, reply=True)
    reply = _response_ids(tokenizer, messages, prompt_text, response)
    prompt_ids = _ids(tokenizer, prompt_text)
    limit = max(max_tokens - len(reply), min(len(prompt_ids), max_tokens // 2))
    prompt_ids = prompt_ids[-limit:]
    reply = reply[: max_tokens - len(prompt_ids)]
    return EncodedExample(tuple(prompt_ids + reply), tuple([IGNORE_INDEX] * len(prompt_ids) + reply), weight)


def encode_rows(tokenizer: Any, rows: Iterable[TrainingRow], max_tokens: int) -> list[EncodedExample]:
    """`encode_example` of every row, in order, with its weight."""
    return [encode_example(tokenizer, row.prompt, row.response, max_tokens, weight=row.weight) for row in rows]


def _response_ids(tokenizer: Any, messages: list[dict[str, str]], prompt_text: str, response: str) -> list[int]:
    conversation = _render(tokenizer, [*messages, {"role": "assistant", "content": response}], reply=False)
    reply = _ids(tokenizer, conversation[len(prompt_text) :] if conversation.startswith(prompt_text) else response)
    end = tokenizer.eos_token_id
    if end is not None:
        last = len(reply) - 1 - reply[::-1].index(end) if end in reply else len(reply)
        reply = [*reply[:last], end]
    if is_blank(response) or not reply:
        raise ModelError("a row has an empty response; remove such rows from the pool")
    return reply


def _render(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, reply: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"the tokenizer of {getattr(tokenizer, 'name_or_path', '') or 'the base model'!r} has no chat template; use an "
            f"instruction-tuned base model, or put a chat_template.jinja next to its tokenizer"
        )
    try:
        rendered = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=reply)
    except TemplateError as error:
        roles = [message.get("role") for message in messages]
        raise ModelError(f"the chat template rejects messages with roles {roles}: {error}") from error
    return str(rendered)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
