"""Items with options of different lengths, and the tiny base models."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray import schemas
from tests.unit.tiny_models import architecture, base, make_base, tokenizer

__all__ = ["architecture", "base", "make_base", "tokenizer"]

QUESTIONS = [
    ("What is the capital of Kenya?", ["Nairobi", "Uganda", "The shilling", "Kenya"], 0),
    ("Which currency is used in Uganda?", ["The shilling", "Nairobi is used"], 0),
    ("Mji mkuu wa Kenya ni nini?", ["Tanzania", "Nairobi.", "Uganda in Kenya"], 1),
    ("Is this the capital?", ["yes", "no", "0 1 2 3"], 2),
]
"""Items of two to four options, whose texts have different lengths."""


@pytest.fixture
def items(tmp_path: Path) -> pa.Table:
    rows = [
        {"item_id": str(number), "language": "sw", "question": question, "options": options, "answer": answer}
        for number, (question, options, answer) in enumerate(QUESTIONS)
    ]
    return pa.Table.from_pylist(rows, schemas.ITEMS)


@pytest.fixture
def item_folder(items: pa.Table, tmp_path: Path) -> Path:
    folder = tmp_path / "guide"
    folder.mkdir()
    pq.write_table(items, folder / "test.parquet")
    return folder
