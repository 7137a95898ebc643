"""Guide and test sets: prompts without answers, items with one right option, and no prompt in both."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import schemas
from compass_ray.config import ConfigError, PoolConfig, SourceConfig
from compass_ray.sources.guides import GuideAndTest, prompt_key, read_guide_and_test

Columns = dict[str, list[Any]]


def _items(count: int = 6, stem: str = "what is", **changes: list[Any]) -> Columns:
    columns: Columns = {
        "sample_id": [f"{stem} {n}" for n in range(count)],
        "subject": [f"subject {n % 2}" for n in range(count)],
        "question": [f"{stem} {n}?" for n in range(count)],
        **{f"option_{letter}": [f"{letter}{n}" for n in range(count)] for letter in "abcd"},
        "answer": ["ABCD"[n % 4] for n in range(count)],
    }
    return {**columns, **changes}


def _read(folder: Path, guide: Columns, test: Columns, items: int | None = None) -> GuideAndTest:
    for name, columns in (("guide", guide), ("test", test)):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    guides, tests = (SourceConfig(path=str(folder / f"{name}.parquet")) for name in ("guide", "test"))
    return read_guide_and_test(PoolConfig(guides=guides, tests=tests), "sw", items)


def test_a_guide_set_holds_prompts_and_no_answers(tmp_path: Path) -> None:
    found = _read(tmp_path, _items(stem="guide"), _items())
    assert found.guide.schema == schemas.GUIDES
    assert sorted(found.guide["prompt"].to_pylist()) == [f"guide {n}?" for n in range(6)]
    assert set(found.guide["language"].to_pylist()) == {"sw"}


def test_items_keep_their_options_and_answer(tmp_path: Path) -> None:
    found = _read(tmp_path, _items(stem="guide"), _items())
    assert found.test.schema == schemas.ITEMS
    by_question = {item["question"]: item for item in found.test.to_pylist()}
    assert by_question["what is 5?"]["options"] == ["a5", "b5", "c5", "d5"]
    assert by_question["what is 5?"]["answer"] == 1
    assert len(set(found.test["item_id"].to_pylist())) == 6


def test_items_keep_their_id_and_a_family(tmp_path: Path) -> None:
    columns = {"sample_id": [f"set/{n}" for n in range(6)], "subject": ["fact_P17", None, "law", "fact_P36", "law", "pick_x"]}
    (tmp_path / "own").mkdir()
    found = _read(tmp_path, _items(stem="guide"), _items() | columns).test.sort_by("sample_id")
    own = _read(tmp_path / "own", _items(stem="guide"), _items() | columns | {"family": ["mine", *[None] * 5]}).test
    assert found["sample_id"].to_pylist() == columns["sample_id"]
    assert found["family"].to_pylist() == ["fact", None, "law", "fact", "law", "pick"]
    assert own.sort_by("sample_id")["family"].to_pylist() == ["mine", None, "law", "fact", "law", "pick"]


def test_a_guide_prompt_that_comes_twice_counts_once(tmp_path: Path) -> None:
    found = _read(tmp_path, {"prompt": ["one", "two", "one"]}, _items())
    assert sorted(found.guide["prompt"].to_pylist()) == ["one", "two"]
    assert found.guide["subject"].to_pylist() == [None, None]


def test_guide_prompts_keep_their_options_in_order_without_empty_ones(tmp_path: Path) -> None:
    guide = _items(3, stem="guide", option_c=["c0", " ", "N/A"])
    found = {row["prompt"]: row["options"] for row in _read(tmp_path, guide, _items()).guide.to_pylist()}
    assert found == {
        "guide 0?": ["a0", "b0", "c0", "d0"],
        "guide 1?": ["a1", "b1", "d1"],
        "guide 2?": ["a2", "b2", "d2"],
    }


def test_guide_prompts_without_options_have_none_and_a_repeated_one_those_of_its_first_row(tmp_path: Path) -> None:
    guide: Columns = {"prompt": ["two?", "none?", "two?"], "option_a": ["x", None, "z"], "option_b": ["y", "", None]}
    found = {row["prompt"]: row["options"] for row in _read(tmp_path, guide, _items()).guide.to_pylist()}
    assert found == {"two?": ["x", "y"], "none?": None}
    assert _read(tmp_path, {"prompt": ["one"]}, _items()).guide["options"].to_pylist() == [None]


def test_fewer_items_are_some_of_the_same_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    whole = _read(tmp_path, _items(stem="guide"), _items(20)).test
    backwards = {name: values[::-1] for name, values in _items(20).items()}
    few = _read(tmp_path, _items(stem="guide"), backwards, items=7).test
    assert few.equals(whole.slice(0, 7))


def test_own_items_may_have_two_options_or_ten(tmp_path: Path) -> None:
    letters = "abcdefghij"
    many: Columns = {
        "prompt": ["two?", "ten?"],
        **{f"option_{letter}": [letter if letter < "c" else None, letter] for letter in letters},
        "answer": ["B", "J"],
    }
    items = {item["question"]: item for item in _read(tmp_path, {"prompt": ["else?"]}, many).test.to_pylist()}
    assert (items["two?"]["options"], items["two?"]["answer"]) == (["a", "b"], 1)
    assert (items["ten?"]["options"], items["ten?"]["answer"]) == (list(letters), 9)


@pytest.mark.parametrize("written", ["C", "c", " C ", "C.", "C) x"])
def test_an_answer_is_read_by_its_letter(tmp_path: Path, written: str) -> None:
    assert _read(tmp_path, _items(stem="guide"), _items(1, answer=[written])).test["answer"].to_pylist() == [2]


@pytest.mark.parametrize("written", ["E", "", "  ", "2", None])
def test_an_answer_that_names_no_option_is_refused(tmp_path: Path, written: str | None) -> None:
    with pytest.raises(ConfigError, match=r"test\.parquet: answer .* is not A, B, C or D"):
        _read(tmp_path, _items(stem="guide"), _items(2, answer=["A", written]))


@pytest.mark.parametrize("leaked", ["what is 3?", "  What IS\n3? "])
def test_a_guide_prompt_that_is_a_test_question_is_refused(tmp_path: Path, leaked: str) -> None:
    with pytest.raises(ConfigError, match=r"1 guide prompts of 'sw' are also test questions.*remove them from pool") as raised:
        _read(tmp_path, {"prompt": ["fine", leaked]}, _items())
    assert leaked[:8] in str(raised.value)


@pytest.mark.parametrize(
    ("guide", "test", "told"),
    [
        ({"prompt": pa.array([], pa.string())}, _items(), r"the guide set of 'sw' is empty; check pool\.guides"),
        (
            _items(stem="guide"),
            {k: pa.array([], pa.string()) for k in _items()},
            r"the test set of 'sw' is empty; check pool\.tests",
        ),
        ({"prompt": ["a", None]}, _items(), r"the guide set of 'sw' has no prompt in row 1 \(1 such rows\)"),
        ({"prompt": [" ", "a"]}, _items(), r"the guide set of 'sw' has no prompt in row 0"),
        (_items(stem="guide"), _items(2, question=["q", ""]), "the test set of 'sw' has no prompt in row 1"),
        (_items(stem="guide"), _items(2, option_c=[None, "x"]), "the test set of 'sw' has no option_c in row 0"),
    ],
)
def test_an_empty_set_or_field_is_refused(tmp_path: Path, guide: Any, test: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        _read(tmp_path, guide, test)


@pytest.mark.parametrize("spelled", ["SW", "swa", "sw-KE", "swh_Latn"])
def test_a_set_is_found_under_any_code_of_its_language(tmp_path: Path, spelled: str) -> None:
    found = _read(tmp_path, {"prompt": ["a", "b"], "language": [spelled, "hi"]}, _items(3, language=[spelled, spelled, "hi"]))
    assert (found.guide["prompt"].to_pylist(), found.test.num_rows) == (["a"], 2)


def test_an_empty_set_names_the_languages_of_its_file(tmp_path: Path) -> None:
    test = _items(3, language=["Swahili", "Swahili", "tl"])
    with pytest.raises(
        ConfigError,
        match=r"set of 'sw' is empty: .*test.parquet has 2 rows of 'Swahili' \(nearest code 'sw'\), 1",
    ):
        _read(tmp_path, {"prompt": ["a"]}, test)
    with pytest.raises(ConfigError, match=r"guide set of 'sw' is empty: .*guide.parquet has 1 rows of 'iw'.*check pool.guides"):
        _read(tmp_path, {"prompt": ["a"], "language": ["iw"]}, _items())


@pytest.mark.parametrize("blank", ["\u200b", "\ufeff\u200e", "\u2800", "\u00ad"])
def test_a_text_of_invisible_characters_is_empty(tmp_path: Path, blank: str) -> None:
    with pytest.raises(ConfigError, match="the guide set of 'sw' has no prompt in row 1"):
        _read(tmp_path, {"prompt": ["a", blank]}, _items())
    with pytest.raises(ConfigError, match="the test set of 'sw' has no option_c in row 0"):
        _read(tmp_path, _items(stem="guide"), _items(2, option_c=[blank, "x"]))


@given(st.text(alphabet="aBß ሀ\n\t", min_size=1, max_size=12))
def test_case_and_spacing_make_no_other_prompt(prompt: str) -> None:
    assert prompt_key(f"  {prompt.upper()}\n") == prompt_key(prompt)
    assert prompt_key(prompt_key(prompt)) == prompt_key(prompt)


FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@given(st.text(max_size=12), st.sampled_from(FORMS))
def test_ways_to_encode_a_text_make_no_other_prompt(prompt: str, form: Any) -> None:
    assert prompt_key(unicodedata.normalize(form, prompt)) == prompt_key(prompt)
    assert prompt_key(prompt_key(prompt)) == prompt_key(prompt)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (unicodedata.normalize("NFC", "Thủ đô ở đâu?"), unicodedata.normalize("NFD", "THỦ ĐÔ Ở ĐÂU?")),
        ("首都はどこですか？", "首都はどこですか?"),
        ("ﾄｳｷｮｳ", "トウキョウ"),
        ("a\u0345\u0301", "a\u0301\u03b9"),
    ],
)
def test_a_test_question_in_another_encoding_is_a_leak(tmp_path: Path, one: str, other: str) -> None:
    with pytest.raises(ConfigError, match="1 guide prompts of 'sw' are also test questions"):
        _read(tmp_path, {"prompt": [one]}, _items(1, question=[other]))
