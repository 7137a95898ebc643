"""Small copies of the benchmarks' hub repositories, in their layouts, for Swahili."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]


def _parquet(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _global_mmlu(folder: Path) -> None:
    row = {"sample_id": "anatomy/test/0", "subject": "anatomy", "question": " Which? ", "answer": "B"}
    row |= {f"option_{letter}": letter * 3 for letter in "abcd"}
    for split in ("test", "dev"):
        _parquet(folder / "sw" / f"{split}-00000-of-00001.parquet", [row, {**row, "answer": "D"}])


def _mmlu_prox(folder: Path) -> None:
    row = {"question": "Sheria?", "answer": "C", "answer_index": 2, "cot_content": "Jibu ni (C).", "category": "law"}
    row |= {f"option_{number}": f"text {number}" if number < 5 else None for number in range(10)}
    for split in ("test", "validation"):
        _parquet(folder / "sw" / f"{split}-00000-of-00001.parquet", [{**row, "question_id": number} for number in range(2)])


def _xnli(folder: Path) -> None:
    rows = [{"premise": f"Mji {label}", "hypothesis": 'Ni "mkubwa"', "label": label} for label in range(3)]
    _parquet(folder / "sw" / "validation-00000-of-00001.parquet", rows)


def _belebele(folder: Path) -> None:
    row = {"flores_passage": "Nairobi ni mji.", "question": "Nini?", "correct_answer_num": "3", "link": "l", "question_number": 1}
    row |= {f"mc_answer{number}": f"jibu {number}" for number in range(1, 5)}
    _lines(folder / "data" / "swh_Latn.jsonl", [json.dumps(row, ensure_ascii=False)] * 2)


def _sib200(folder: Path) -> None:
    table = ["index_id\tcategory\ttext", '0\ttravel\tMji wa "Nairobi" ni mkubwa', "1\thealth\tDawa"]
    for split in ("train", "dev", "test"):
        _lines(folder / "data" / "swh_Latn" / f"{split}.tsv", table)


def _global_piqa(folder: Path) -> None:
    header = "prompt\tsolution0\tsolution1\tlabel"
    rows = ["Kikombe kikianguka,\tkitavunjika\tkitaruka\t0", "Maji\tyanachemka\tyanaganda\t1"]
    _lines(folder / "data" / "swh_latn.tsv", [header, *rows])


def _xquad(folder: Path) -> None:
    row = {"id": "1", "context": "سرعة", "question": "كم؟", "answers": {"text": ["سرعة"], "answer_start": [0]}}
    _parquet(folder / "xquad.ar" / "validation-00000-of-00001.parquet", [row, row])


def _mgsm(folder: Path) -> None:
    _lines(folder / "mgsm_sw.tsv", ["Bata ana mayai 16. Ngapi?\t16", "Roketi moja na mbili?\t3"])


COPIES: Mapping[str, Callable[[Path], None]] = {
    "global_mmlu": _global_mmlu,
    "mmlu_prox": _mmlu_prox,
    "xnli": _xnli,
    "belebele": _belebele,
    "sib200": _sib200,
    "global_piqa": _global_piqa,
    "xquad": _xquad,
    "mgsm": _mgsm,
}
LANGUAGES = {"xquad": "ar"}
"""Languages other than Swahili, which XQuAD lacks."""
CHANCE = {"global_mmlu": 1 / 4, "mmlu_prox": 1 / 5, "xnli": 1 / 3, "belebele": 1 / 4, "sib200": 1 / 7, "global_piqa": 1 / 2}
ITEMS = {"xnli": 3}
