"""Guide sets and test sets of a target language (COMPASS, sections 3.1 and 4.1).

Key property: a guide set holds prompts only, and shares no prompt with the test set. The leak check is by content.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import pyarrow as pa

from compass_ray import tables
from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError, PoolConfig
from compass_ray.sources.loading import load

_OPTIONS = ("option_a", "option_b", "option_c", "option_d")


@dataclass(frozen=True)
class GuideAndTest:
    """Guide prompts (tables.GUIDES) and test items (tables.ITEMS) of one language."""

    guide: pa.Table
    test: pa.Table


def read_guide_and_test(config: PoolConfig, language: str, items: int | None = None) -> GuideAndTest:
    """Read both sets of a language.

    Args:
        config: the sources.
        language: code of the target language.
        items: bound on test items, the first by item_id hash; all when None.

    Raises:
        ConfigError: a source cannot be read, a set is empty, or the two overlap.
    """
    guide, test = _guide(config, language), _test(config, language)
    _refuse_leak(guide, test, language)
    return GuideAndTest(guide, test if items is None else test.slice(0, items))


def prompt_key(prompt: str) -> str:
    """What makes two prompts the same: their text without case, spacing and ways to encode a character.

    Unicode's compatibility caseless matching (standard, D146), so fullwidth forms, ligatures and superscripts are as plain.

    >>> prompt_key("Ｍｊｉ\u3000ｍｋｕｕ？") == prompt_key("mji mkuu?")
    True
    """
    folded = _folded(_folded(unicodedata.normalize("NFD", prompt)))  # folding a letter can leave one that has to be composed
    return " ".join(folded.split())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text.casefold())


def _guide(config: PoolConfig, language: str) -> pa.Table:
    table = _subjects(load(config.guides, ("prompt",), language))
    _refuse_blanks(table, ("prompt",), "guide", language)
    ids = [content_hash(language, "guide", prompt) for prompt in table["prompt"].to_pylist()]
    rows = {
        "row_id": pa.array(ids),
        "prompt": table["prompt"],
        "language": _same(language, table),
        "subject": table["subject"],
    }
    distinct = pa.table(rows).group_by("row_id", use_threads=False).aggregate([(n, "first") for n in rows if n != "row_id"])
    renamed = distinct.rename_columns([name.removesuffix("_first") for name in distinct.column_names])
    return renamed.select(tables.GUIDES.names).sort_by("row_id").cast(tables.GUIDES)


def _test(config: PoolConfig, language: str) -> pa.Table:
    table = _subjects(load(config.tests, ("prompt", *_OPTIONS, "answer"), language))
    _refuse_blanks(table, ("prompt", *_OPTIONS), "test", language)
    options = list(zip(*(table[name].to_pylist() for name in _OPTIONS), strict=True))
    prompts = table["prompt"].to_pylist()
    answers = ["ABCD".find((a or "").strip().upper()[:1] or "?") for a in table["answer"].to_pylist()]
    if -1 in answers:
        raise ConfigError(f"{config.tests.path}: answer {table['answer'][answers.index(-1)].as_py()!r} is not A, B, C or D")
    keys = table["item_id"].to_pylist() if "item_id" in table.column_names else prompts
    rows = {
        "item_id": pa.array([content_hash(language, k, p, *o) for k, p, o in zip(keys, prompts, options, strict=True)]),
        "language": _same(language, table),
        "subject": table["subject"],
        "question": table["prompt"],
        "options": pa.array([list(o) for o in options], pa.list_(pa.string())),
        "answer": pa.array(answers, pa.int8()),
    }
    return pa.table(rows).sort_by("item_id").cast(tables.ITEMS)


def _refuse_blanks(table: pa.Table, names: tuple[str, ...], which: str, language: str) -> None:
    if table.num_rows == 0:
        raise ConfigError(f"the {which} set of {language!r} is empty; check pool.{which}s")
    for name in names:
        blank = [i for i, value in enumerate(table[name].to_pylist()) if not (value or "").strip()]
        if blank:
            raise ConfigError(
                f"the {which} set of {language!r} has no {name} in row {blank[0]} ({len(blank)} such rows); "
                f"fill it in or leave the rows out of pool.{which}s"
            )


def _subjects(table: pa.Table) -> pa.Table:
    if "subject" in table.column_names:
        return table
    return table.append_column("subject", pa.nulls(table.num_rows, pa.string()))


def _same(language: str, table: pa.Table) -> pa.Array:
    return pa.array([language] * table.num_rows, pa.string())


def _refuse_leak(guide: pa.Table, test: pa.Table, language: str) -> None:
    tested = {prompt_key(q) for q in test["question"].to_pylist()}
    leaked = [p for p in guide["prompt"].to_pylist() if prompt_key(p) in tested]
    if leaked:
        raise ConfigError(
            f"{len(leaked)} guide prompts of {language!r} are test questions too, for example {leaked[0][:80]!r}; "
            f"take them out of one of the two (pool.guides, pool.tests)"
        )
