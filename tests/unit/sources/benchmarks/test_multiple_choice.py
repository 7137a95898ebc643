"""Items of two to ten options: whichever options are empty, the right one stays the right one."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import ConfigError
from compass_ray.sources.benchmarks.layouts import LAYOUTS, LETTERS, OPTIONS
from compass_ray.sources.benchmarks.multiple_choice import build_items
from compass_ray.sources.column_mapping import MappedTable

EMPTY = st.sampled_from([None, "", "  ", "N/A", "n/a"])


@st.composite
def questions(draw: st.DrawFn) -> tuple[dict[str, str | None], str]:
    """The columns of an item of MMLU-ProX, and the text of its right option."""
    filled = draw(st.sets(st.sampled_from(range(2, 10))))
    texts = [f"text {place}" if place < 2 or place in filled else draw(EMPTY) for place in range(10)]
    right = draw(st.sampled_from([0, 1, *sorted(filled)]))
    columns = dict(zip(OPTIONS, texts, strict=True))
    return {"prompt": "q", "answer": LETTERS[right], **columns}, f"text {right}"


def _items(row: dict[str, str | None], layout: str = "mmlu_prox") -> pa.Table:
    table = pa.table({name: pa.array([value], pa.string()) for name, value in row.items()})
    return build_items(MappedTable(table, next(found for name, found in LAYOUTS.items() if name == layout)), "sw", "here")


@given(questions())
def test_the_right_option_is_found_among_those_that_are_filled(question: tuple[dict[str, str | None], str]) -> None:
    row, right = question
    [item] = _items(row).to_pylist()
    assert item["options"][item["answer"]] == right
    assert item["options"] == [text for name, text in row.items() if name in OPTIONS and (text or "").startswith("text")]


@given(questions(), st.sampled_from(LETTERS))
def test_a_letter_of_an_empty_option_is_refused(question: tuple[dict[str, str | None], str], letter: str) -> None:
    row = {**question[0], "answer": letter}
    if (row[f"option_{letter.lower()}"] or "").startswith("text"):
        assert _items(row).num_rows == 1
    else:
        with pytest.raises(ConfigError, match=f"here: answer '{letter}' is not A"):
            _items(row)


def test_what_an_option_of_global_mmlu_says_is_an_option() -> None:
    row = {"prompt": "q", "answer": "D", **dict(zip(OPTIONS[:4], ("a", "b", "N/A", "d"), strict=True))}
    [item] = _items(row, "global_mmlu").to_pylist()
    assert (item["options"], item["answer"]) == (["a", "b", "N/A", "d"], 3)
    with pytest.raises(ConfigError, match="the test set of 'sw' has no option_c in row 0"):
        _items({**row, "option_c": " "}, "global_mmlu")
