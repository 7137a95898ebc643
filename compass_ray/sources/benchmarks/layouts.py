"""Column layouts of known data sets, mapped to this project's columns.

Key property: a layout is detected by its columns, so a hub data set, a local copy and the atlas use the same code
(COMPASS, section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from compass_ray.config.data import LayoutName, SourceConfig
from compass_ray.sources import conversations
from compass_ray.sources.benchmarks import xnli

LETTERS = "ABCDEFGHIJ"
OPTIONS = tuple(f"option_{letter.lower()}" for letter in LETTERS)
"""Columns of the options of an item, as many as MMLU-ProX has."""
OPTIONAL = ("subject", "source", "item_id", "language", "src", conversations.TURNS_COLUMN, conversations.FAULT_COLUMN)
"""Columns that are read if a source has them."""


def _unchanged(table: pa.Table, language: str | None) -> pa.Table:
    return table


@dataclass(frozen=True)
class BenchmarkLayout:
    """One layout of columns.

    ``columns`` maps our columns to theirs; the layout is detected by these and by ``marks``. ``options`` are the options that
    every item has; empty other options are dropped. ``derive`` computes our columns where a plain mapping is not possible.
    ``family`` is the benchmark family in which item ids are unique, None if they are unique only within a file.
    """

    columns: Mapping[str, str]
    marks: tuple[str, ...] = ()
    options: tuple[str, ...] = OPTIONS[:2]
    derive: Callable[[pa.Table, str | None], pa.Table] = field(default=_unchanged)
    family: str | None = None

    def matches(self, present: Iterable[str]) -> bool:
        """Whether a table with these columns has this layout."""
        return {*self.columns.values(), *self.marks} <= set(present)


_TEXT = {"prompt": "inputs", "response": "targets"}

LAYOUTS: Mapping[LayoutName, BenchmarkLayout] = {
    "aya_dataset": BenchmarkLayout({**_TEXT, "language": "language_code"}),
    "aya_collection": BenchmarkLayout({**_TEXT, "language": "language"}),
    "global_mmlu": BenchmarkLayout(
        {"prompt": "question", "item_id": "sample_id", "answer": "answer", **{name: name for name in OPTIONS[:4]}},
        options=OPTIONS[:4],
        family="MMLU",
    ),
    "mmlu_prox": BenchmarkLayout(
        {
            "prompt": "question",
            "item_id": "question_id_src",
            "answer": "answer",
            "subject": "category",
            "src": "src",
            **{ours: f"option_{index}" for index, ours in enumerate(OPTIONS)},
        },
        family="MMLU-Pro",
    ),
    "xnli": BenchmarkLayout({}, marks=("premise", "hypothesis", "label"), options=OPTIONS[:3], derive=xnli.to_items),
    "messages": BenchmarkLayout({}, marks=(conversations.MESSAGES,), derive=conversations.derive_messages),
    "sharegpt": BenchmarkLayout({}, marks=(conversations.SHAREGPT,), derive=conversations.derive_sharegpt),
    "alpaca": BenchmarkLayout({}, marks=conversations.ALPACA, derive=conversations.derive_alpaca),
    "own": BenchmarkLayout({"prompt": "prompt", "response": "response", "language": "language"}),
}
"""All layouts in the order of detection; `own`, the last one, is the fallback."""


def detect_layout(present: Iterable[str]) -> LayoutName:
    """The layout of a table with these columns. Plain prompts and responses come before conversations."""
    names = set(present)
    plain = {"prompt", "response"} <= names
    return next((name for name, layout in LAYOUTS.items() if layout.matches(names) and not (plain and name in _DIALOGUES)), "own")


_DIALOGUES: frozenset[LayoutName] = frozenset({"messages", "sharegpt", "alpaca"})


def source_layout(source: SourceConfig, present: Iterable[str]) -> LayoutName:
    """The layout of a source whose table has these columns, under the names that its settings give them."""
    return source.layout or detect_layout({*present, *source.columns})
