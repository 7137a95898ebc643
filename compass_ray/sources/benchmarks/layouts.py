"""The layouts in which data sets come: which of their columns is which of ours.

Key property: a layout is recognised by its columns, so a hub data set, a local copy and the atlas go through the same code
(COMPASS, section 4.1). Reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from compass_ray.config.data import LayoutName as LayoutName
from compass_ray.sources.benchmarks import xnli

LETTERS = "ABCDEFGHIJ"
OPTIONS = tuple(f"option_{letter.lower()}" for letter in LETTERS)
"""Our columns of an item's options, as many as MMLU-ProX has."""
OPTIONAL = ("subject", "source", "item_id", "language", "src")
"""Our columns that are read where a source has them."""


def _unchanged(table: pa.Table, language: str | None) -> pa.Table:
    return table


@dataclass(frozen=True)
class BenchmarkLayout:
    """One layout of columns.

    ``columns``: ours to theirs, and what the layout is recognised by, with ``marks`` besides. ``options``: those that every
    item must have; others may be empty and are left out. ``derive``: makes our columns where theirs have to be put together
    first. ``family``: what an item's identity is unique in, None where it means nothing outside its own file.
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
            **{ours: f"option_{place}" for place, ours in enumerate(OPTIONS)},
        },
        family="MMLU-Pro",
    ),
    "xnli": BenchmarkLayout({}, marks=("premise", "hypothesis", "label"), options=OPTIONS[:3], derive=xnli.to_items),
    "own": BenchmarkLayout({"prompt": "prompt", "response": "response", "language": "language"}),
}
"""Every layout, in the order in which they are tried; `own`, the last, is also what an unknown one is read as."""


def detect_layout(present: Iterable[str]) -> LayoutName:
    """The layout of a table with these columns."""
    names = list(present)
    return next((name for name, layout in LAYOUTS.items() if layout.matches(names)), "own")
