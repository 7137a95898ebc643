"""Test sets that are answered in words or numbers: XQuAD and MGSM (COMPASS, section 4.1).

Key property: every accepted answer is kept with the item, and the metric by which its benchmark scores a reply. Answers
nothing; see `compass_ray.models.answering`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from compass_ray import tables
from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources.benchmarks.layouts import recognised
from compass_ray.sources.benchmarks.marking import number_of
from compass_ray.sources.reading import read_raw

_Item = Mapping[str, Any]


def read_open_items(source: SourceConfig, language: str, items: int | None = None) -> pa.Table:
    """tables.OPEN_ITEMS of a source in one language, sorted by item_id.

    Args:
        source: a data set in the layout of XQuAD (``name: "xquad.{language}"``) or of MGSM, or a file of one.
        language: fills ``{language}`` in the path and name.
        items: bound on items, the first by item_id hash; all when None.

    Raises:
        ConfigError: it cannot be read, is in another layout, is empty, or an item lacks its question or answer.
    """
    rows = [row for each in (source, *source.also) for row in _items(each, language)]
    if not rows:
        raise ConfigError(f"{source.path} holds no items in {language!r}; check its name, split and filters")
    table = pa.Table.from_pylist(rows, tables.OPEN_ITEMS).sort_by("item_id")
    return table if items is None else table.slice(0, items)


def _items(source: SourceConfig, language: str) -> list[dict[str, Any]]:
    raw = read_raw(source, language)
    layout = source.layout or recognised(raw.column_names)
    if layout not in _READERS:
        raise ConfigError(
            f"{source.path}: its columns {raw.column_names} are not those of {' or '.join(_READERS)}; "
            f"multiple choice is read through pool.tests"
        )
    read = _READERS[layout]
    return [_row(read(row), language, f"{source.path}: row {at}") for at, row in enumerate(raw.to_pylist())]


def _row(item: _Item, language: str, where: str) -> dict[str, Any]:
    if not item["question"].strip() or not item["answers"]:
        raise ConfigError(f"{where} lacks a question or an answer; fill it in, or leave the row out")
    key = content_hash(language, item.get("key") or item["question"], item["question"], *item["answers"])
    return {"item_id": key, "language": language, "subject": None, **{n: item[n] for n in ("question", "answers", "metric")}}


def _xquad(row: _Item) -> dict[str, Any]:
    texts = (row["answers"] or {}).get("text") or []
    answers = list(dict.fromkeys(text for text in texts if text))
    parts = [row["context"] or "", row["question"] or ""]
    return {"key": row["id"], "question": "\n\n".join(parts) if all(parts) else "", "answers": answers, "metric": "f1"}


def _mgsm(row: _Item) -> dict[str, Any]:
    number = number_of(str(row["answer_number"]))
    return {"question": row["question"] or "", "answers": [] if number is None else [number], "metric": "number"}


_READERS: Mapping[str, Callable[[_Item], dict[str, Any]]] = {"xquad": _xquad, "mgsm": _mgsm}
