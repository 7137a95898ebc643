"""Prompts of a file for an update: as they are written, and refused by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass_ray.config import ConfigError
from compass_ray.continual.update.windows import _read_prompts


def test_prompts_arrive_as_written(tmp_path: Path) -> None:
    prompts = ["one\u2028line", "00120", "a\x85b"]
    file = tmp_path / "$asked.jsonl"
    file.write_text("".join(json.dumps({"prompt": each}, ensure_ascii=False) + "\n\n" for each in prompts), "utf-8")
    assert _read_prompts(file) == prompts


def test_a_blank_prompt_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "asked.csv").write_text("prompt,n\na,1\n\u200b,2\n", "utf-8")
    with pytest.raises(ConfigError, match=r"asked\.csv: row 2 has no prompt but '\\u200b'"):
        _read_prompts(tmp_path / "asked.csv")
    with pytest.raises(ConfigError, match=r"askd\.csv: the file does not exist; the nearest name is '.*asked\.csv'"):
        _read_prompts(tmp_path / "askd.csv")
