"""Measures of every method: bits per byte, normalised probability, accuracies and Brier score, by language and family.

Key property: all methods of a language are measured on the same items, those that every one of them answered. Families of items
weigh alike in the mean of a language, and languages weigh alike in the mean over languages. Items whose reply was cut off have no
measures. Evaluations of former versions have none either, and are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from compass_ray.config import RunConfig
from compass_ray.core.array_checks import IntArray
from compass_ray.core.choice_measures import ItemMeasures, MeasureSummary, mean_summary, summarize_families
from compass_ray.core.families import join_families
from compass_ray.records.evaluations import ScoredItems, TextRecord
from compass_ray.report.comparison import MEAN, low_subjects
from compass_ray.report.run_reader import METHODS, RunReader, language_name, method_name
from compass_ray.translations import mark
from compass_ray.translations import translate as _

MeasureScope = Literal["low", "other", "all"]
MEASURE_SCOPES: Mapping[MeasureScope, str] = {
    "low": mark("under-represented subjects"),
    "other": mark("other subjects"),
    "all": mark("all subjects"),
}


@dataclass(frozen=True)
class MeasureRow:
    """One method in one language, or in the mean over languages, on the items of one scope."""

    language: str
    scope: MeasureScope
    method: str
    mean: MeasureSummary
    """Mean over families of items, which weigh alike."""
    families: Mapping[str, MeasureSummary]
    """Means over the items of each family."""
    languages: int = 1
    """Number of languages in this row."""

    @property
    def name(self) -> str:
        """Display name of the language."""
        return _("mean of {count}", count=self.languages) if self.language == MEAN else language_name(self.language)


@dataclass(frozen=True)
class MeasureRows:
    """Rows by scope, language and method, the mean over languages last; and the measures of texts by language and method."""

    rows: tuple[MeasureRow, ...]
    texts: Mapping[str, Mapping[str, TextRecord]]
    missing: tuple[str, ...]
    """What could not be measured, in sentences."""

    def rows_in(self, scope: MeasureScope) -> tuple[MeasureRow, ...]:
        """The rows of one scope."""
        return tuple(row for row in self.rows if row.scope == scope)

    def mean_rows(self, scope: MeasureScope) -> tuple[MeasureRow, ...]:
        """The means over the languages in which every method was measured."""
        return tuple(row for row in self.rows_in(scope) if row.language == MEAN)

    def text_bits(self, language: str, method: str) -> float | None:
        """Bits per byte of the text of a language, or their mean over the languages that have a text for every method."""
        if language != MEAN:
            found = self.texts.get(language, {}).get(method)
            return found.bits_per_byte if found else None
        methods = {each for by in self.texts.values() for each in by}
        complete = [by[method].bits_per_byte for by in self.texts.values() if set(by) == methods and method in by]
        return float(np.mean(complete)) if complete else None


@dataclass(frozen=True)
class _MeasuredItems:
    """The measures of several methods on the same items of a language."""

    language: str
    measures: Mapping[str, ItemMeasures]
    families: np.ndarray
    """object[n]: the name of each item's family."""
    low: np.ndarray
    """bool[n]: whether the item's subject is under-represented."""
    truncated: int
    former: tuple[str, ...]
    """Methods whose evaluation has no measures."""


def measure(reader: RunReader, config: RunConfig) -> MeasureRows:
    """Measure every method in every language of the configuration."""
    found = [items for code in config.languages if (items := _read_items(reader, config, code))]
    rows = [row for scope in MEASURE_SCOPES for row in _build_rows(found, scope)]
    texts = {code: by for code in config.languages if (by := _read_texts(reader, code))}
    return MeasureRows(tuple(rows), texts, tuple(_describe_missing(found)))


def _read_texts(reader: RunReader, language: str) -> dict[str, TextRecord]:
    found = {method: reader.scored_items(method, language) for method in METHODS}
    return {method: scored.text for method, scored in found.items() if scored and scored.text}


def _read_items(reader: RunReader, config: RunConfig, language: str) -> _MeasuredItems | None:
    scored = [found for method in METHODS if (found := reader.scored_items(method, language))]
    former = tuple(each.method for each in scored if each.measures is None)
    measured = {each.method: (each, each.measures) for each in scored if each.measures is not None}
    if not measured:
        return _MeasuredItems(language, {}, np.array([], object), np.array([], np.bool_), 0, former) if scored else None
    common = sorted(set.intersection(*(set(_whole_items(each)) for each, _ in measured.values())))
    rows = {method: _rows_of(each, common) for method, (each, _) in measured.items()}
    method, (first, _) = next(iter(measured.items()))
    low = low_subjects(reader, language)
    return _MeasuredItems(
        language=language,
        measures={name: measures.filtered(rows[name]) for name, (_, measures) in measured.items()},
        families=np.array(join_families([first.families[i] for i in rows[method]], config.evaluate.families), dtype=object),
        low=np.array([first.subjects[i] in low for i in rows[method]], dtype=np.bool_),
        truncated=int(first.truncated.sum()),
        former=former,
    )


def _whole_items(scored: ScoredItems) -> list[str]:
    """Items of which no reply was cut off."""
    return [item for item, is_cut in zip(scored.item_ids, scored.truncated, strict=True) if not is_cut]


def _rows_of(scored: ScoredItems, item_ids: Sequence[str]) -> IntArray:
    """int64[n]: the row of each item."""
    index = {item: i for i, item in enumerate(scored.item_ids)}
    return np.array([index[item] for item in item_ids], np.int64)


def _build_rows(found: Sequence[_MeasuredItems], scope: MeasureScope) -> Iterator[MeasureRow]:
    by_language = {items.language: list(_language_rows(items, scope)) for items in found}
    for rows in by_language.values():
        yield from rows
    methods = {method for items in found for method in items.measures}
    complete = [rows for rows in by_language.values() if {row.method for row in rows} == methods]
    for method in METHODS:
        if complete and method in methods:
            yield _mean_row([row for rows in complete for row in rows if row.method == method])


def _language_rows(items: _MeasuredItems, scope: MeasureScope) -> Iterator[MeasureRow]:
    mask = {"low": items.low, "other": ~items.low, "all": np.ones(len(items.low), np.bool_)}[scope]
    for method, measures in items.measures.items():
        if mask.any():
            families = summarize_families(measures.filtered(mask), items.families[mask].tolist())
            yield MeasureRow(items.language, scope, method, mean_summary(list(families.values())), families)


def _mean_row(rows: Sequence[MeasureRow]) -> MeasureRow:
    names = sorted({name for row in rows for name in row.families})
    families = {name: mean_summary([row.families[name] for row in rows if name in row.families]) for name in names}
    return MeasureRow(MEAN, rows[0].scope, rows[0].method, mean_summary([row.mean for row in rows]), families, len(rows))


def _describe_missing(found: Sequence[_MeasuredItems]) -> Iterator[str]:
    """What could not be measured, each once, with its languages."""
    notes: dict[str, list[str]] = {}
    for items in found:
        if items.former:
            names = ", ".join(method_name(method) for method in items.former)
            note = _("Evaluations of a former version have no measures (--force evaluate makes them again), {names}", names=names)
            notes.setdefault(note, []).append(language_name(items.language))
        if items.truncated:
            note = _("{count} items excluded, because a reply is longer than train.max_tokens", count=items.truncated)
            notes.setdefault(note, []).append(language_name(items.language))
    yield from (f"{note}: {', '.join(names)}." for note, names in notes.items())
