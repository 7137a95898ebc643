"""Local copies in the layout of the hub's repositories: a card that lists the configurations, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Rows = list[dict[str, Any]]


def repository(folder: Path, splits: Mapping[str, Mapping[str, Rows]], schema: pa.Schema) -> str:
    """Write ``CONFIGURATION/SPLIT-00000-of-00001.parquet`` of every split and the README.md that names them."""
    configs = []
    for name, parts in splits.items():
        (folder / name).mkdir(parents=True)
        for split, rows in parts.items():
            pq.write_table(pa.Table.from_pylist(rows, schema), folder / name / f"{split}-00000-of-00001.parquet")
        files = [{"split": split, "path": f"{name}/{split}-*"} for split in parts]
        configs.append({"config_name": name, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n\n# A copy\n", "utf-8")
    return str(folder)


MMLU_PROX = pa.schema(
    [
        ("question_id", pa.int64()),
        ("question", pa.string()),
        *((f"option_{place}", pa.string()) for place in range(10)),
        ("answer", pa.string()),
        ("answer_index", pa.int64()),
        ("cot_content", pa.string()),
        ("category", pa.string()),
        ("src", pa.string()),
        ("question_id_src", pa.int64()),
    ]
)
GLOBAL_MMLU = pa.schema(
    [
        *((name, pa.string()) for name in ("sample_id", "subject", "subject_category", "question")),
        *((f"option_{letter}", pa.string()) for letter in "abcd"),
        ("answer", pa.string()),
        *((name, pa.string()) for name in ("required_knowledge", "time_sensitive", "reference", "culture", "region", "country")),
        ("cultural_sensitivity_label", pa.string()),
        ("is_annotated", pa.bool_()),
    ]
)
XNLI = pa.schema([("premise", pa.string()), ("hypothesis", pa.string()), ("label", pa.int64())])


def prox(number: int, question: str, options: list[str | None], answer: str, **changes: Any) -> dict[str, Any]:
    """A row of MMLU-ProX; `number` is its question_id and, unless it is changed, its question_id_src."""
    filled = [*options, *[None] * (10 - len(options))]
    return {
        "question_id": number,
        "question": question,
        **{f"option_{place}": option for place, option in enumerate(filled)},
        "answer": answer,
        "answer_index": "ABCDEFGHIJ".index(answer),
        "cot_content": "",
        "category": "physics",
        "src": "stemez-Physics",
        "question_id_src": number,
        **changes,
    }
