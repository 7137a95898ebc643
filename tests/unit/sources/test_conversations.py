"""Conversations as rows: every layout and file format, what is stored, and why a conversation is rejected."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import ConfigError, PoolConfig, SourceConfig
from compass_ray.sources.column_mapping import load_rows
from compass_ray.sources.conversations import parse_conversation
from compass_ray.sources.pool import Pool, read_pool

TURNS = [("system", "Be brief."), ("user", "Habari?"), ("assistant", "Nzuri."), ("user", "Jina?"), ("assistant", "Asha.")]
MESSAGES = [{"role": role, "content": content} for role, content in TURNS]
SHAREGPT = [{"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": content} for role, content in TURNS]
KINDS = ("jsonl", "json", "csv", "parquet", "folder", "parquet of text")


def _write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> str:
    texts = [{name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()} for row in rows]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = folder / f"rows.{kind.split()[0]}"
    match kind:
        case "jsonl":
            path.write_text(lines, "utf-8")
        case "json":
            path.write_text(json.dumps(rows), "utf-8")
        case "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(texts[0]))
                writer.writeheader()
                writer.writerows(texts)
        case "folder":
            path.mkdir()
            (path / "train.jsonl").write_text(lines, "utf-8")
        case _:
            pq.write_table(pa.Table.from_pylist(texts if "text" in kind else rows), path)
    return str(path)


def _pool(path: str, **settings: Any) -> Pool:
    return read_pool(PoolConfig(sources=(SourceConfig(path=path, language="sw", **settings),)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("column", "turns"), [("messages", MESSAGES), ("conversations", SHAREGPT), ("dialog", MESSAGES)])
def test_a_conversation_is_one_row_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, column: str, turns: list[dict[str, str]]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    columns = {"messages": "dialog"} if column == "dialog" else {}
    [row] = _pool(_write(tmp_path, kind, [{column: turns}]), columns=columns).rows.to_pylist()
    assert (row["prompt"], row["response"], row["messages"]) == ("Jina?", "Asha.", MESSAGES)


def test_one_turn_is_the_row_that_a_prompt_and_a_response_give(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    plain = _pool(_write(tmp_path / "a", "jsonl", [{"prompt": "Habari?", "response": "Nzuri."}])).rows
    assert _pool(_write(tmp_path, "jsonl", [{"messages": MESSAGES[1:3]}])).rows.equals(plain)
    assert plain["messages"].to_pylist() == [None]
    assert plain["row_id"].to_pylist() == ["1034d063d5f8b269"]


def test_rows_differ_by_their_earlier_turns(tmp_path: Path) -> None:
    pool = _pool(_write(tmp_path, "jsonl", [{"messages": MESSAGES}, {"messages": MESSAGES[1:]}, {"messages": MESSAGES}]))
    assert pool.rows.num_rows == len(set(pool.rows["row_id"].to_pylist())) == 2
    assert pool.rejected["reason"].to_pylist() == ["the same row came before"]


def test_alpaca_joins_instruction_and_input(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Translate.", "input": "maji", "output": "water"},
        {"instruction": "Say hello.", "input": "", "output": "Habari"},
        {"instruction": "Say bye.", "input": None, "output": "Kwaheri", "system": "Be brief."},
        {"instruction": "Say nothing.", "input": "", "output": " "},
    ]
    pool = _pool(_write(tmp_path, "jsonl", rows))
    found = {row["response"]: (row["prompt"], row["messages"]) for row in pool.rows.to_pylist()}
    assert found["water"] == ("Translate.\n\nmaji", None)
    assert found["Habari"] == ("Say hello.", None)
    assert [turn["role"] for turn in found["Kwaheri"][1]] == ["system", "user", "assistant"]
    assert pool.rejected["reason"].to_pylist() == ["turn 2 is empty"]


def test_alpaca_without_an_instruction_has_its_input_as_the_prompt(tmp_path: Path) -> None:
    rows = [{"instruction": text, "input": "maji", "output": "water"} for text in ("", None)]
    pool = _pool(_write(tmp_path, "jsonl", rows))
    assert pool.rows["prompt"].to_pylist() == ["maji"]
    assert pool.rejected["reason"].to_pylist() == ["the same row came before"]


def test_an_empty_system_prompt_is_none(tmp_path: Path) -> None:
    plain = parse_conversation(MESSAGES[1:])
    assert parse_conversation([_turn("system", ""), *MESSAGES[1:]]) == plain
    assert parse_conversation([_turn("system", None), *MESSAGES[1:]], "Be brief.") == parse_conversation(MESSAGES)


def test_roles_may_be_capitalised() -> None:
    turns = [_turn(each["role"].title(), each["content"]) for each in MESSAGES]
    assert parse_conversation(turns) == parse_conversation(MESSAGES)


def test_a_missing_language_is_told_with_the_columns_of_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, "jsonl", [{"messages": MESSAGES, "lang": "sw"}])
    with pytest.raises(ConfigError, match=r"no column for language; it has messages, lang\. Set language: CODE"):
        read_pool(PoolConfig(sources=(SourceConfig(path=path),)))


def test_prompts_and_responses_come_before_conversations(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "b", "messages": MESSAGES, "instruction": "c", "output": "d"}]
    [row] = _pool(_write(tmp_path, "jsonl", rows)).rows.to_pylist()
    assert (row["prompt"], row["response"], row["messages"]) == ("a", "b", None)
    chosen = _pool(str(tmp_path / "rows.jsonl"), layout="messages").rows.to_pylist()
    assert chosen[0]["messages"] == MESSAGES


def _turn(role: Any, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


USER, REPLY = _turn("user", "a"), _turn("assistant", "b")
FAULTS = [
    (None, "there is no conversation"),
    ("no json", "the conversation is no list of turns"),
    ({"role": "user"}, "the conversation is no list of turns"),
    ([], "there is no conversation"),
    ([_turn("system", "a")], "there is no conversation"),
    ([USER], "no turn is of the assistant"),
    ([USER, REPLY, USER], "the last turn is not of the assistant"),
    ([REPLY, USER, REPLY], "the first turn is not of the user"),
    ([REPLY], "the first turn is not of the user"),
    ([USER, USER, REPLY], "two turns of the user follow each other"),
    ([USER, REPLY, REPLY], "two turns of the assistant follow each other"),
    ([USER, _turn("system", "c"), REPLY], "a system prompt is not the first turn"),
    ([USER, _turn("tool", "c"), REPLY], "turn 2 has the role 'tool'"),
    ([USER, _turn(["x"], "c")], "turn 2 has the role \"['x']\""),
    ([USER, {"content": "b"}], "turn 2 has no role"),
    ([USER, "b"], "turn 2 is no object with a role and a content"),
    ([USER, _turn("assistant", None)], "turn 2 is empty"),
    ([USER, _turn("assistant", " \u200b")], "turn 2 is empty"),
    ([USER, _turn("assistant", "b", tool_calls=[{"id": "1"}])], "turn 2 calls a tool"),
    ([_turn("user", [{"type": "image_url", "image_url": "x"}]), REPLY], "turn 1 is not text"),
]


@pytest.mark.parametrize(("turns", "reason"), FAULTS)
def test_conversations_that_cannot_be_trained_on_are_rejected_with_the_reason(tmp_path: Path, turns: Any, reason: str) -> None:
    pool = _pool(_write(tmp_path, "jsonl", [{"messages": MESSAGES}, {"messages": turns}]))
    assert pool.rows.num_rows == 1
    assert pool.rejected["reason"].to_pylist() == [reason]


def test_parts_of_text_and_empty_calls_are_taken() -> None:
    parsed = parse_conversation(
        [_turn("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), REPLY | {"tool_calls": []}]
    )
    assert (parsed.turns, parsed.fault) == ((("user", "ab"), ("assistant", "b")), None)


KEYS = st.sampled_from(["role", "from", "content", "value", "type", "text", "tool_calls"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.integers() | st.sampled_from(["user", "gpt", "system"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_any_value_is_a_conversation_or_has_a_fault(value: Any) -> None:
    parsed = parse_conversation(value)
    roles = [role for role, _ in parsed.turns if role != "system"]
    assert parsed.fault or (roles == ["user", "assistant"] * (len(roles) // 2) and roles)


def test_guides_take_the_last_turn_of_the_user(tmp_path: Path) -> None:
    path = _write(tmp_path, "jsonl", [{"messages": MESSAGES}, {"messages": MESSAGES[:4]}])
    assert load_rows(SourceConfig(path=path), ("prompt",))["prompt"].to_pylist() == ["Jina?", "Jina?"]


def test_a_column_of_conversations_with_another_name_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path, "parquet", [{"dialog": MESSAGES}])
    with pytest.raises(ConfigError, match=r"columns: \{messages: dialog\}"):
        _pool(path)
