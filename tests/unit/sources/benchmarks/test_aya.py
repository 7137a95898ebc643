"""Aya and the translated part of its collection as they lie on the hub, read as one pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from compass_ray.config import PoolConfig, SourceConfig
from compass_ray.sources.pool import read_pool
from tests.unit.sources.benchmarks.hub import repository

AYA = pa.schema(
    [(name, pa.string()) for name in ("inputs", "targets", "language", "language_code", "annotation_type", "user_id")]
)
COLLECTION = pa.schema(
    [
        ("id", pa.int64()),
        *((name, pa.string()) for name in ("inputs", "targets", "dataset_name", "sub_dataset_name", "task_type")),
        ("template_id", pa.int64()),
        *((name, pa.string()) for name in ("language", "script", "split")),
    ]
)


def _aya(prompt: str, language: str, code: str) -> dict[str, Any]:
    person = {"annotation_type": "original-annotations", "user_id": "f0"}
    return {"inputs": prompt, "targets": "x", "language": language, "language_code": code, **person}


def _noise(number: int, language: str, dataset: str = "MLQA-en (T)", template: int = 1) -> dict[str, Any]:
    row = {"id": number, "inputs": f"context and question {number}", "targets": "y", "dataset_name": dataset}
    more = {
        "sub_dataset_name": "-",
        "task_type": "question-answering",
        "template_id": template,
        "script": "x",
        "split": "validation",
    }
    return {**row, **more, "language": language}


@pytest.fixture
def sources(tmp_path: Path) -> tuple[SourceConfig, SourceConfig]:
    rows = [_aya("Habari?", "Swahili", "swh"), _aya("Kuku wangapi?", "Zulu", "zul"), _aya("Здраво?", "Macedonian", "mkd")]
    aya = repository(tmp_path / "aya_dataset", {"default": {"train": rows}}, AYA)
    noise = [_noise(0, "swh"), _noise(1, "hin", template=2), _noise(2, "hin", "MLQA-hi (T)")]
    collection = repository(tmp_path / "aya_collection", {"translated_mlqa": {"validation": noise}}, COLLECTION)
    return SourceConfig(path=aya), SourceConfig(path=collection, name="translated_mlqa", split="validation")


def test_rows_of_both_have_our_codes_and_their_origin(sources: tuple[SourceConfig, SourceConfig]) -> None:
    rows = read_pool(PoolConfig(sources=sources)).rows.to_pylist()
    assert {(row["source"], row["language"]) for row in rows} == {
        ("aya_dataset", "sw"),
        ("aya_dataset", "zu"),
        ("aya_dataset", "mkd"),
        ("aya_collection", "sw"),
        ("aya_collection", "hi"),
    }
    assert len(rows) == 6


def test_one_data_set_of_the_collection_is_taken_and_a_template_left_out(sources: tuple[SourceConfig, SourceConfig]) -> None:
    filters = {"include": {"dataset_name": "MLQA-en (T)"}, "exclude": {"template_id": ("2",)}}
    [row] = read_pool(PoolConfig(sources=(sources[1].model_copy(update=filters),))).rows.to_pylist()
    assert (row["prompt"], row["language"]) == ("context and question 0", "sw")
