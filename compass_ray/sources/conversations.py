"""Rows of conversations: `messages` (role and content), ShareGPT's `conversations`, and Alpaca's instruction, input and output.

Key property: a conversation becomes one row. Its prompt is the user's last turn, its response the assistant's last turn, and the
row stores all turns if there are more. A conversation that cannot be trained on has a fault, which becomes the reason of a
rejected row. Tool calls, images and reasoning in fields of their own are not taken.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa

from compass_ray.config import SourceConfig
from compass_ray.sources.text_columns import replace_columns, text_column
from compass_ray.texts import is_blank

TURNS_COLUMN = "compass_ray.messages"
"""Derived column: the turns of a conversation as JSON, a list of pairs of role and content; null for a single prompt."""
FAULT_COLUMN = "compass_ray.fault"
"""Derived column: why a conversation cannot be trained on; null if it can."""
MESSAGES, SHAREGPT = "messages", "conversations"
"""Columns that hold conversations. `columns: {messages: NAME}` names another one."""
ALPACA = ("instruction", "output")
_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "chatgpt": "assistant", "model": "assistant",
}  # fmt: skip
_CALLS = ("tool_calls", "function_call", "tool_call_id")


class ParsedConversation(NamedTuple):
    """Turns as pairs of role (system, user or assistant) and content, and why they cannot be trained on, if so."""

    turns: tuple[tuple[str, str], ...]
    fault: str | None = None

    def last(self, role: str) -> str | None:
        """Content of the last turn of a role."""
        return next((content for each, content in reversed(self.turns) if each == role), None)


def conversation_columns(source: SourceConfig) -> frozenset[str]:
    """Names of the columns of a source that may hold conversations."""
    return frozenset({MESSAGES, SHAREGPT, source.columns.get(MESSAGES, MESSAGES)})


def parse_conversation(value: Any, system: str | None = None) -> ParsedConversation:
    """The turns of a cell: a list of objects, or the same as JSON text. ``system`` is a system prompt of another column.

    >>> parse_conversation('[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]').turns
    (('user', 'a'), ('assistant', 'b'))
    >>> parse_conversation([{"role": "user", "content": "a"}]).fault
    'no turn is of the assistant'
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ParsedConversation((), "the conversation is no list of turns")
    if not isinstance(value, list):
        return ParsedConversation((), "there is no conversation" if value is None else "the conversation is no list of turns")
    turns, faults = list[tuple[str, str]](), list[str]()
    for number, turn in enumerate(value, 1):
        role, content, fault = _parse_turn(turn, number)
        turns += [(role, content)] if role and content else []
        faults += [fault] if fault else []
    if not is_blank(system) and system is not None and not any(role == "system" for role, _ in turns):
        turns.insert(0, ("system", system))
    return ParsedConversation(tuple(turns), faults[0] if faults else _find_fault([role for role, _ in turns]))


def derive_messages(table: pa.Table, language: str | None) -> pa.Table:
    """Add our columns to a table of `messages`."""
    return _derive(table, [parse_conversation(*each) for each in zip(table[MESSAGES].to_pylist(), _systems(table), strict=True)])


def derive_sharegpt(table: pa.Table, language: str | None) -> pa.Table:
    """Add our columns to a table of ShareGPT's `conversations`."""
    return _derive(table, [parse_conversation(*each) for each in zip(table[SHAREGPT].to_pylist(), _systems(table), strict=True)])


def derive_alpaca(table: pa.Table, language: str | None) -> pa.Table:
    """Add our columns to a table of Alpaca's columns; ``input`` follows the instruction after an empty line."""
    columns = [text_column(table, name, "Alpaca").to_pylist() for name in ALPACA]
    inputs = text_column(table, "input", "Alpaca").to_pylist() if "input" in table.column_names else [None] * table.num_rows
    parsed = []
    for instruction, output, given, system in zip(*columns, inputs, _systems(table), strict=True):
        prompt = "\n\n".join(text for text in (instruction, given) if text and not is_blank(text))
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": output}]
        parsed.append(parse_conversation(turns, system))
    return _derive(table, parsed)


def _systems(table: pa.Table) -> Sequence[str | None]:
    """System prompts in a column of their own."""
    has_texts = "system" in table.column_names and not pa.types.is_nested(table.schema.field("system").type)
    return text_column(table, "system", "").to_pylist() if has_texts else [None] * table.num_rows


def _derive(table: pa.Table, parsed: Sequence[ParsedConversation]) -> pa.Table:
    columns = {
        "prompt": [each.last("user") for each in parsed],
        "response": [each.last("assistant") for each in parsed],
        TURNS_COLUMN: [json.dumps(each.turns, ensure_ascii=False) if len(each.turns) > 2 else None for each in parsed],
        FAULT_COLUMN: [each.fault for each in parsed],
    }
    return replace_columns(table, {name: pa.array(values, pa.string()) for name, values in columns.items()})


def _parse_turn(turn: Any, number: int) -> tuple[str | None, str | None, str | None]:
    """Role, content and fault of a turn. An empty system prompt is none: it has neither."""
    if not isinstance(turn, dict):
        return None, None, f"turn {number} is no object with a role and a content"
    written = next((turn[name] for name in ("role", "from") if turn.get(name) is not None), None)
    role = _ROLES.get(written.strip().lower()) if isinstance(written, str) else None
    content = _join_parts(next((turn[name] for name in ("content", "value") if turn.get(name) is not None), None))
    if written is None:
        return None, content, f"turn {number} has no role"
    if role is None:
        return None, content, f"turn {number} has the role {str(written)[:40]!r}"
    if any(turn.get(name) for name in _CALLS):
        return role, content, f"turn {number} calls a tool"
    if content is None:
        return role, None, f"turn {number} is not text"
    if is_blank(content):
        return (None, None, None) if role == "system" else (role, content, f"turn {number} is empty")
    return role, content, None


def _join_parts(content: Any) -> str | None:
    """The text of a content, which may be a list of parts, joined as in a request to the endpoint; None if it is not text."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(parts) else None
    return "" if content is None else content if isinstance(content, str) else None


def _find_fault(roles: Sequence[str]) -> str | None:
    """Why a conversation with turns of these roles cannot be trained on."""
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if "assistant" not in spoken:
        return "no turn is of the assistant" if "user" in spoken else "there is no conversation"
    if "system" in spoken:
        return "a system prompt is not the first turn"
    if spoken[0] != "user":
        return "the first turn is not of the user"
    if any(one == other for one, other in pairwise(spoken)):
        return f"two turns of the {next(one for one, other in pairwise(spoken) if one == other)} follow each other"
    return None if spoken[-1] == "assistant" else "the last turn is not of the assistant"
