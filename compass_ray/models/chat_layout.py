"""What a chat template puts around the contents of messages.

Key property: the template is rendered once for each sequence of roles, with markers in place of the contents. A prompt is those
texts with the contents between them, so training, scoring and serving share the same prompt, and no content can change it. Text
that opens a reply, such as an empty think block, belongs to the prompt. Logic of a template that depends on what a message says
does not apply. A template with the current date always has `DATE`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from compass_ray.models.errors import ModelError

Message = Mapping[str, str]
"""One turn of a conversation: its ``role`` (system, user or assistant) and its ``content``."""

DATE = dt.date(2024, 7, 26)
"""The current date of every template, in training and in serving. Llama 3.x has it where no date is given."""
_MARKER = "Turn{:04d}\n\n  Content"
_BLANK = "\n \n"
"""White space around a marker, which shows what a template trims."""
_THINK, _THINK_END = "<think>", "</think>"


@dataclass(frozen=True)
class ContentSlot:
    """The place of one message's content. ``start`` and ``end`` are the characters that the template trims there."""

    turn: int
    start: str | None = ""
    end: str | None = ""

    def trim(self, content: str) -> str:
        """The content as the template shows it; None trims all white space, an empty text nothing."""
        content = content if self.start == "" else content.lstrip(self.start)
        return content if self.end == "" else content.rstrip(self.end)


@dataclass(frozen=True)
class ChatLayout:
    """The texts of a conversation up to the end of the reply to its last message.

    ``literals`` has one text more than ``slots``. The last slot is that of the reply.
    """

    literals: tuple[str, ...]
    slots: tuple[ContentSlot, ...]
    reply_start: str
    """Spaces between the opening of a reply and its content. They belong to the reply, because its first token may hold them."""
    end_of_turn: str
    """From the end of a reply's content to the special token that ends it; empty if the template has no such token."""


_MAX_LAYOUTS = 1024
"""Layouts in memory for each tokenizer. Clients choose the roles of their requests, so there is no other limit."""
_LAYOUTS: WeakKeyDictionary[Any, dict[tuple[str, tuple[str, ...]], ChatLayout | str]] = WeakKeyDictionary()


def find_layout(tokenizer: Any, roles: tuple[str, ...]) -> ChatLayout:
    """The layout of messages with these roles, and of the reply to them.

    Raises:
        ModelError: the tokenizer has no chat template, the template rejects the roles, or it leaves out or changes a content.
    """
    key = (str(_template_source(tokenizer)), roles)
    known = _LAYOUTS.setdefault(tokenizer, {})
    if (found := known.get(key)) is None:
        try:
            found = _make_layout(tokenizer, roles)
        except ModelError as error:
            found = str(error)
        if len(known) >= _MAX_LAYOUTS:
            known.clear()
        known[key] = found
    if isinstance(found, str):
        raise ModelError(found)
    return found


def normalize_messages(tokenizer: Any, messages: Sequence[Message]) -> list[Message]:
    """The messages as the template takes them, up to and without the reply to the last one.

    A system prompt moves to the start of the next user turn if the template rejects or leaves out the role. The reasoning of
    an assistant turn is removed if the template knows reasoning, because no later prompt shows it.

    Raises:
        ModelError: as `find_layout`.
    """
    messages = [{**message, "content": strip_reasoning(tokenizer, message)} for message in messages]
    roles = tuple(message["role"] for message in messages)
    try:
        find_layout(tokenizer, roles)
    except ModelError:
        if "system" not in roles or "user" not in roles:
            raise
        return _fold_system(messages)
    return messages


def strip_reasoning(tokenizer: Any, message: Message) -> str:
    """The content without a block of reasoning before it, in the assistant's turns of a template that knows such blocks."""
    content = message["content"]
    if message["role"] != "assistant" or _THINK_END not in content or _THINK_END not in _template_source(tokenizer):
        return content
    answer = content.rpartition(_THINK_END)[2].lstrip("\n")
    return answer if answer.strip() else content


def find_end_tokens(tokenizer: Any) -> frozenset[int]:
    """Ids of the special token that ends a reply in the chat template; empty without a usable template."""
    try:
        end = find_layout(tokenizer, ("user",)).end_of_turn
    except ModelError:
        return frozenset()
    return frozenset(tokenizer(end, add_special_tokens=False)["input_ids"][-1:])


def _fold_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with each system prompt at the start of the next user turn, or at the end of the last one."""
    folded: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            folded.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            folded.append(message)
    if waiting:
        last = max(index for index, message in enumerate(folded) if message["role"] == "user")
        folded[last] = {**folded[last], "content": "\n\n".join([folded[last]["content"], *waiting])}
    return folded


def _make_layout(tokenizer: Any, roles: tuple[str, ...]) -> ChatLayout:
    markers = [_MARKER.format(turn) for turn in range(len(roles) + 1)]
    asked = _render(tokenizer, roles, markers[:-1], reply=True)
    replied = (*roles, "assistant")
    literals, turns = _split(_render(tokenizer, replied, markers), replied)
    before, _ = _split(_render(tokenizer, replied, [_BLANK + each for each in markers]), replied)
    after, _ = _split(_render(tokenizer, replied, [each + _BLANK for each in markers]), replied)
    slots = []
    for index, turn in enumerate(turns):
        left, right = literals[index : index + 2]
        starts = {left: None, left + _BLANK[1:]: "\n", left + _BLANK: ""}
        ends = {right: None, _BLANK[:-1] + right: "\n", _BLANK + right: ""}
        start, end = _find_trim(before[index], starts, replied[turn]), _find_trim(after[index + 1], ends, replied[turn])
        slots.append(ContentSlot(turn, start, end))
    head = "".join(text + markers[turn] for text, turn in zip(literals, turns, strict=False)).removesuffix(markers[-1])
    prompt = _choose_prompt(head, asked)
    literals[-2] = prompt.rpartition(markers[turns[-2]])[2]
    return ChatLayout(tuple(literals), tuple(slots), head[len(prompt) :], _end_of_turn(tokenizer, literals[-1]))


def _choose_prompt(head: str, asked: str) -> str:
    """The text before a reply, from a rendered reply (``head``) and from a prompt that asks for one (``asked``)."""
    if head.startswith(asked):
        opening = head.removeprefix(asked)
        return asked + opening.rstrip(" ")
    opens_reasoning = asked.rpartition(_THINK)[2].find(_THINK_END) < 0 and _THINK in asked
    return asked if asked.startswith(head) and not opens_reasoning else head


def _split(rendered: str, roles: Sequence[str]) -> tuple[list[str], list[int]]:
    """The texts around the markers, and the turn of each marker.

    Raises:
        ModelError: a marker is missing, or the turns are not in order.
    """
    parts = re.split(r"Turn(\d{4})\n\n  Content", rendered)
    literals, turns = parts[::2], [int(part) for part in parts[1::2]]
    missing = [roles[turn] for turn in range(len(roles)) if turn not in turns]
    if missing:
        raise ModelError(
            f"the chat template does not show the content of a message of role {missing[0]!r} in a conversation with roles "
            f"{list(roles)}; correct chat_template.jinja of the base model"
        )
    shown = [turn for turn in turns if roles[turn] != "system"]
    if shown != sorted(set(shown)) or turns[-1] != len(roles) - 1:
        raise ModelError(
            f"the chat template shows messages with roles {list(roles)} twice or in another order; correct chat_template.jinja "
            f"of the base model"
        )
    return literals, turns


def _find_trim(padded: str, shown: Mapping[str, str | None], role: str) -> str | None:
    """What the template trims from a padded content, from the text for each possibility."""
    if padded not in shown:
        raise ModelError(
            f"the chat template changes the white space around a content of role {role!r}; correct chat_template.jinja of the "
            f"base model"
        )
    return shown[padded]


def _end_of_turn(tokenizer: Any, text: str) -> str:
    """The text after a reply up to and with its first special token."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    ends = [(text.find(token), len(token)) for token in {*added, *tokenizer.all_special_tokens} if token in text]
    start, length = min(ends, key=lambda end: (end[0], -end[1]), default=(0, 0))
    return text[: start + length]


def _template_source(tokenizer: Any) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"the tokenizer of {getattr(tokenizer, 'name_or_path', '') or 'the base model'!r} has no chat template; use an "
            f"instruction-tuned base model, or put a chat_template.jinja next to its tokenizer"
        )
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise ModelError("the tokenizer has several chat templates and none is named 'default'; name one of them so") from error


def _render(tokenizer: Any, roles: Sequence[str], contents: Sequence[str], *, reply: bool = False) -> str:
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    source = _template_source(tokenizer)
    settings = {name: value for name, value in _SETTINGS.items() if name in source}
    if "strftime_now" in source:
        settings["chat_template"] = _STRFTIME_NOW + source
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply, **settings))
    except Exception as error:  # code of any template
        raise ModelError(f"the chat template rejects messages with roles {list(roles)}: {error}") from error


def _define_strftime_now() -> str:
    """A macro that replaces the function of the current time in a template; transformers takes no function in its place."""
    moment = dt.datetime.combine(DATE, dt.time())
    directives = [f"%{sign}{letter}" for letter in "aAbBdHIjmMpSyY" for sign in ("", "-")]
    filters = "".join(f" | replace({each!r}, {moment.strftime(each)!r})" for each in directives)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{filters} }}}}{{%- endmacro -%}}{{{{ '' }}}}"


_SETTINGS: Mapping[str, Any] = {"date_string": DATE.strftime("%d %b %Y"), "enable_thinking": False}
"""Values for variables of a template that names them."""
_STRFTIME_NOW = _define_strftime_now()
