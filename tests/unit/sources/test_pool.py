"""The pool: which rows are accepted, which are refused and why, and that nothing else decides."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import schemas
from compass_ray.config import ConfigError, PoolConfig, SourceConfig
from compass_ray.sources import pool as pool_module
from compass_ray.sources.pool import Pool, read_pool

Row = tuple[str | None, str | None, str | None]
GOOD: list[Row] = [("habari", "nzuri", "swh"), ("नमस्ते", "hi", "hin"), ("zdravo", "hi", "bul")]


def _file(folder: Path, rows: list[Row], name: str = "rows", **columns: list[str]) -> SourceConfig:
    names = ("prompt", "response", "language")
    table = {n: pa.array([row[i] for row in rows], pa.string()) for i, n in enumerate(names)}
    pq.write_table(pa.table({**table, **columns}), folder / f"{name}.parquet")
    return SourceConfig(path=str(folder / f"{name}.parquet"))


def _read(*sources: SourceConfig, languages: tuple[str, ...] | None = None) -> Pool:
    return read_pool(PoolConfig(sources=sources, languages=languages))


def _reasons(pool: Pool) -> dict[str | None, str]:
    return {row["prompt"]: row["reason"] for row in pool.rejected.to_pylist()}


def test_rows_have_the_schema_and_codes_of_the_house(tmp_path: Path) -> None:
    pool = _read(_file(tmp_path, GOOD, subject=["a", "b", "c"]))
    assert pool.rows.schema == schemas.POOL
    assert pool.rejected.schema == schemas.REJECTED
    assert {(r["prompt"], r["language"], r["subject"], r["source"]) for r in pool.rows.to_pylist()} == {
        ("habari", "sw", "a", "rows"),
        ("नमस्ते", "hi", "b", "rows"),
        ("zdravo", "bul", "c", "rows"),
    }


def test_our_own_codes_are_languages_too(tmp_path: Path) -> None:
    pool = _read(_file(tmp_path, [("a", "x", "sw"), ("b", "x", "fil"), ("c", "x", "zh")]))
    assert sorted(pool.rows["language"].to_pylist()) == ["fil", "sw", "zh"]


def test_every_code_of_a_language_gives_rows_of_that_language(tmp_path: Path) -> None:
    codes = {"swa": "sw", "nep": "ne", "fas": "fa", "msa": "ms", "ara": "ar", "zho": "zh", "arz": "ar", "SW": "sw", "zh-CN": "zh"}
    rows = _read(_file(tmp_path, [(code, "x", code) for code in codes])).rows.to_pylist()
    assert {row["prompt"]: row["language"] for row in rows} == codes


def test_languages_that_only_mmlu_prox_has_are_languages_like_the_others(tmp_path: Path) -> None:
    codes = {"hun": "hu", "wol": "wo", "zul": "zu", "mar": "mr", "urd": "ur", "tha": "th", "afr": "af", "xho": "xho"}
    rows = _read(_file(tmp_path, [(code, "x", code) for code in codes])).rows.to_pylist()
    assert {row["prompt"]: row["language"] for row in rows} == codes


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("  \n", "x", "swh"), "the prompt is empty"),
        ((None, "x", "swh"), "the prompt is empty"),
        (("q", "\t", "swh"), "the response is empty"),
        (("\u200b\ufeff\u200e", "x", "swh"), "the prompt is empty"),
        (("q", "\u2800 \u00ad", "swh"), "the response is empty"),
        (("q", None, "swh"), "the response is empty"),
        (("q", "x", None), "the language is not known"),
        (("q", "x", "Klingon"), "the language is not known"),
        (("q", "x", "xx"), "the language is not known"),
        (("habari", "nzuri", "swh"), "the same row came before"),
        (("habari", "nzuri", "sw"), "the same row came before"),
    ],
)
def test_a_row_that_cannot_be_used_is_kept_with_the_reason(tmp_path: Path, row: Row, reason: str) -> None:
    pool = _read(_file(tmp_path, [*GOOD, row]))
    assert pool.rows.num_rows == len(GOOD)
    assert [refused["reason"] for refused in pool.rejected.to_pylist()] == [reason]


def test_an_unknown_language_is_kept_as_written_and_named_with_the_nearest_code(tmp_path: Path) -> None:
    strange: list[Row] = [("a", "x", "Swahili"), ("b", "x", "Swahili"), ("c", "x", "??")]
    pool = _read(_file(tmp_path, [*GOOD, *strange]))
    assert {row["prompt"]: row["language"] for row in pool.rejected.to_pylist()} == {p: code for p, _, code in strange}
    told = r"the language is not known \(3 rows: 2 rows of 'Swahili' \(nearest code 'sw'\), 1 rows of '\?\?'\)"
    with pytest.raises(ConfigError, match=told):
        _read(_file(tmp_path, strange))


def test_one_stray_language_does_not_stop_the_others(tmp_path: Path) -> None:
    pool = _read(_file(tmp_path, [("q", "x", "english, mostly"), *GOOD]))
    assert pool.rows.num_rows == len(GOOD)
    assert _reasons(pool) == {"q": "the language is not known"}


def test_languages_outside_the_pool_are_refused_by_name(tmp_path: Path) -> None:
    pool = _read(_file(tmp_path, GOOD), languages=("sw", "bul"))
    assert sorted(pool.rows["language"].to_pylist()) == ["bul", "sw"]
    assert _reasons(pool) == {"नमस्ते": "the language is not in pool.languages"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "have no rows"),
        ([("", "x", "swh"), (" ", "x", "swh"), ("q", "x", "?")], r"have 3 rows.*because the prompt is empty \(2 rows\)"),
    ],
)
def test_an_empty_pool_says_why(tmp_path: Path, rows: list[Row], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"the pool is empty: .*rows\.parquet {told}.*correct pool\.sources"):
        _read(_file(tmp_path, rows))


def test_the_same_text_from_two_sources_is_two_rows(tmp_path: Path) -> None:
    pool = _read(_file(tmp_path, GOOD, "one"), _file(tmp_path, GOOD, "two"))
    assert pool.rows.num_rows == 2 * len(GOOD)
    assert len(set(pool.rows["row_id"].to_pylist())) == 2 * len(GOOD)


def test_a_limit_holds_for_each_language_of_its_own_source(tmp_path: Path) -> None:
    many: list[Row] = [(f"q{n}", "x", code) for n in range(20) for code in ("swh", "hin")]
    limited = _file(tmp_path, many, "limited").model_copy(update={"rows_per_language": 3})
    rows = _read(limited, _file(tmp_path, many, "whole")).rows.to_pylist()
    counts = {
        (s, c): sum(r["source"] == s and r["language"] == c for r in rows) for s in ("limited", "whole") for c in ("sw", "hi")
    }
    assert counts == {("limited", "sw"): 3, ("limited", "hi"): 3, ("whole", "sw"): 20, ("whole", "hi"): 20}


def test_a_limit_holds_where_rows_name_their_own_origin(tmp_path: Path) -> None:
    many: list[Row] = [(f"q{n}", "x", "swh") for n in range(20)]
    source = _file(tmp_path, many, source=[f"site {n % 3}" for n in range(20)])
    assert _read(source.model_copy(update={"rows_per_language": 4})).rows.num_rows == 4


def test_a_larger_limit_adds_rows_and_takes_none_away(tmp_path: Path) -> None:
    source = _file(tmp_path, [(f"q{n}", "x", "swh") for n in range(30)])
    few, more = (set(_read(source.model_copy(update={"rows_per_language": n})).rows["row_id"].to_pylist()) for n in (5, 12))
    assert few < more


def test_rows_of_similar_length_lie_together(tmp_path: Path) -> None:
    prompts = [("ሀ" if n % 2 else "a") * (1 + n * 7 % 30) for n in range(40)]
    lengths = [
        len(p) for p in _read(_file(tmp_path, [(p, str(n), "amh") for n, p in enumerate(prompts)])).rows["prompt"].to_pylist()
    ]
    assert lengths == sorted(lengths)


_rows = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "bb", "ሀ", " a"]), st.sampled_from(["", "x", "y"]), st.sampled_from(["swh", "hin", "??", None])
    ),
    min_size=1,
    max_size=30,
)


@given(_rows, st.randoms(use_true_random=False))
def test_the_order_of_a_file_changes_nothing(rows: list[Row], shuffler: random.Random) -> None:
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    first, second = _outcome(rows), _outcome(shuffled)
    assert first == second


@given(_rows)
def test_every_row_is_accepted_once_or_refused_with_a_reason(rows: list[Row]) -> None:
    usable = {(p, r, c) for p, r, c in rows if p.strip() and r and c in ("swh", "hin")}
    accepted, refused = _outcome(rows)
    assert len(accepted) == len(usable) + 1
    assert len(accepted) + len(refused) == len(rows) + 1


def _outcome(rows: list[Row]) -> tuple[list[dict[str, str]], list[str]]:
    """Accepted rows in their order, and the reasons of the others, sorted."""
    names = ("prompt", "response", "language")
    known = [*rows, ("always", "here", "swh")]
    table = pa.table({n: pa.array([row[i] for row in known], pa.string()) for i, n in enumerate(names)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "load_rows", lambda source, needed: table)
        pool = _read(SourceConfig(path="rows"))
    return pool.rows.to_pylist(), sorted(pool.rejected["reason"].to_pylist())
