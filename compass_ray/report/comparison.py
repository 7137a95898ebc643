"""Comparison of methods: accuracy of every method on the same items, and differences with confidence intervals.

Key property: all numbers of a row are over the same items, those that every method of the row answered. So differences are
paired. The mean weighs languages equally and covers the languages in which every method was measured. COMPASS, sections 4.3
and 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.core.bootstrap import Interval, bootstrap, paired_bootstrap
from compass_ray.core.seeds import generator
from compass_ray.records.evaluations import ScoredItems
from compass_ray.report.run_reader import METHODS, RunReader, language_name, method_name
from compass_ray.report.training_cost import TrainingCosts, read_costs
from compass_ray.translations import mark
from compass_ray.translations import translate as _

Scope = Literal["low", "all"]
SCOPES: Mapping[Scope, str] = {"low": mark("under-represented subjects"), "all": mark("all subjects")}
MEAN = "mean"
ALWAYS_SHOWN = ("zero_shot", "target", "random", "compass")
"""Methods with a column in every table. Other methods have a column only if they were evaluated."""
BASELINES = tuple(method for method in METHODS if method not in ("zero_shot", "compass"))


@dataclass(frozen=True)
class ComparisonRow:
    """One language, or the mean over languages, in one scope; accuracies and differences in [0, 1]."""

    language: str
    scope: Scope
    items: int
    accuracy: Mapping[str, Interval]
    """By method, with its own interval. Methods that were not evaluated are absent."""
    difference: Mapping[str, Interval]
    """COMPASS minus the baseline, by baseline."""
    languages: int = 1
    """Number of languages in this row."""
    chance: float | None = None
    """Expected accuracy of a random choice: the mean over items of 1 / number of options."""

    def accuracy_of(self, method: str) -> float | None:
        """Accuracy of a method. None if it was not evaluated."""
        found = self.accuracy.get(method)
        return None if found is None else found.mean

    @property
    def name(self) -> str:
        """Display name of the language."""
        return _("mean of {count}", count=self.languages) if self.language == MEAN else language_name(self.language)


@dataclass(frozen=True)
class Comparison:
    """Rows in the order of the configuration, the mean last, and notes on what could not be compared."""

    rows: tuple[ComparisonRow, ...]
    confidence: float
    resamples: int
    missing: tuple[str, ...]
    costs: TrainingCosts

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that have a column in the tables, in order."""
        return tuple(m for m in METHODS if m in ALWAYS_SHOWN or any(m in row.accuracy for row in self.rows))

    @property
    def baselines(self) -> tuple[str, ...]:
        """Methods that COMPASS is compared with."""
        return tuple(method for method in self.methods if method in BASELINES)

    def rows_in(self, scope: Scope) -> tuple[ComparisonRow, ...]:
        """The rows of one scope."""
        return tuple(row for row in self.rows if row.scope == scope)

    def mean_row(self, scope: Scope) -> ComparisonRow | None:
        """The mean over languages in one scope, if any language has all methods."""
        return next((row for row in self.rows_in(scope) if row.language == MEAN), None)


@dataclass(frozen=True)
class _PairedAnswers:
    """The answers of several methods to the same items: bool[n] by method."""

    language: str
    correct: Mapping[str, np.ndarray]
    low: np.ndarray
    """bool[n]: whether the item's subject is under-represented."""
    chance: np.ndarray
    """float64[n]: 1 / number of options of the item."""
    dropped: int

    @property
    def items(self) -> int:
        return len(self.low)

    def filtered(self, mask: np.ndarray) -> _PairedAnswers:
        chosen = {method: answers[mask] for method, answers in self.correct.items()}
        return _PairedAnswers(self.language, chosen, self.low[mask], self.chance[mask], self.dropped)


def compare(run: RunDir, config: RunConfig) -> Comparison:
    """Compare the methods in every language of the configuration, on all items and on under-represented subjects.

    Intervals are paired bootstrap intervals of ``config.evaluate``, seeded from the run's seed.
    """
    reader = RunReader(run)
    paired = [found for code in config.languages if (found := _pair_answers(reader, code))]
    rows = [row for scope in SCOPES for row in _build_rows(_restrict_to_scope(paired, scope), scope, config)]
    return Comparison(
        rows=tuple(rows),
        confidence=config.evaluate.confidence,
        resamples=config.evaluate.resamples,
        missing=tuple(_missing(reader, config, paired)),
        costs=read_costs(reader, config),
    )


def table_header(comparison: Comparison) -> tuple[str, ...]:
    """Column names of `table_rows`."""
    names = [method_name(method) for method in comparison.methods]
    minus = [_("COMPASS minus {method}", method=method_name(baseline)) for baseline in comparison.baselines]
    return (_("language"), _("chance"), *names, _("items"), *minus)


def table_rows(comparison: Comparison, scope: Scope = "low") -> list[tuple[str, ...]]:
    """Rows of a scope as text: accuracy in percent, differences in percentage points with their interval."""
    return [
        (
            row.name,
            format_percent(row.chance),
            *(format_percent(row.accuracy_of(method)) for method in comparison.methods),
            str(row.items),
            *(format_points(row.difference.get(baseline)) for baseline in comparison.baselines),
        )
        for row in comparison.rows_in(scope)
    ]


def terminal_tables(comparison: Comparison) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Title and rows, header first, of the tables of each measured scope, for a terminal.

    With more than two baselines the differences are in a separate table, to keep the table narrow.
    """
    return [each for scope in SCOPES if comparison.rows_in(scope) for each in _terminal(comparison, scope)]


def _terminal(comparison: Comparison, scope: Scope) -> list[tuple[str, list[tuple[str, ...]]]]:
    title, rows = SCOPES[scope], [table_header(comparison), *table_rows(comparison, scope)]
    if len(comparison.baselines) <= 2:
        return [(f"Accuracy on {title}, percent", rows)]
    columns = len(rows[0]) - len(comparison.baselines)
    names = ("language", *(METHODS[baseline] for baseline in comparison.baselines))
    return [
        (f"Accuracy on {title}, percent", [row[:columns] for row in rows]),
        (f"COMPASS minus the others on {title}, points", [names, *((row[0], *row[columns:]) for row in rows[1:])]),
    ]


def includes_zero(interval: Interval) -> bool:
    """Whether the interval includes 0, so that the sign of the difference is unknown."""
    return interval.low <= 0.0 <= interval.high


def format_percent(share: float | None) -> str:
    """A share as percent with one decimal, a dash for none.

    >>> format_percent(0.4567), format_percent(None)
    ('45.7', '–')
    """
    return "–" if share is None else f"{100 * share:.1f}"


def format_points(interval: Interval | None) -> str:
    """A difference in percentage points with its interval, as ``+4.0 [+1.5, +6.5]``; a dash for none."""
    if interval is None:
        return "–"
    return f"{_signed(interval.mean)} [{_signed(interval.low)}, {_signed(interval.high)}]"


def _signed(share: float) -> str:
    """In points, with one decimal and a sign. A value that rounds to 0.0 has no sign."""
    text = f"{100 * share:+.1f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _pair_answers(reader: RunReader, language: str) -> _PairedAnswers | None:
    scored = [found for method in METHODS if (found := reader.scored_items(method, language))]
    if not scored:
        return None
    common = sorted(set.intersection(*(set(s.item_ids) for s in scored)))
    return _PairedAnswers(
        language=language,
        correct={s.method: _at(s, common, s.correct) for s in scored},
        low=_low(scored[0], common, low_subjects(reader, language)),
        chance=_at(scored[0], common, scored[0].chance),
        dropped=max(len(s.item_ids) for s in scored) - len(common),
    )


def low_subjects(reader: RunReader, language: str) -> frozenset[str]:
    """Subjects that the bias simulation reduced in a language: as recorded by a selection, else by an evaluation."""
    for method in METHODS:
        if allocation := reader.allocation(method, language):
            return frozenset(allocation.low_subjects)
    scored = (reader.scored_items(method, language) for method in METHODS)
    return frozenset(next((found.low_subjects for found in scored if found and found.low_subjects), ()))


def _at(scored: ScoredItems, item_ids: Sequence[str], values: np.ndarray) -> np.ndarray:
    """The values of these items, in their order."""
    index = {item: i for i, item in enumerate(scored.item_ids)}
    return values[np.array([index[item] for item in item_ids], dtype=np.int64)]


def _low(scored: ScoredItems, item_ids: Sequence[str], low: frozenset[str]) -> np.ndarray:
    subject = dict(zip(scored.item_ids, scored.subjects, strict=True))
    return np.array([subject[item] in low for item in item_ids], dtype=bool)


def _restrict_to_scope(paired: Iterable[_PairedAnswers], scope: Scope) -> list[_PairedAnswers]:
    masked = [p if scope == "all" else p.filtered(p.low) for p in paired]
    return [p for p in masked if p.items]


def _build_rows(paired: Sequence[_PairedAnswers], scope: Scope, config: RunConfig) -> list[ComparisonRow]:
    rows = [_build_row(p.language, scope, [p], config) for p in paired]
    methods = {method for p in paired for method in p.correct}
    complete = [p for p in paired if set(p.correct) == methods]
    return [*rows, _build_row(MEAN, scope, complete, config)] if complete else rows


def _build_row(language: str, scope: Scope, paired: Sequence[_PairedAnswers], config: RunConfig) -> ComparisonRow:
    answers = {
        method: np.concatenate([p.correct[method] for p in paired]).astype(np.float64)
        for method in METHODS
        if method in paired[0].correct
    }
    estimator = _IntervalEstimator(config, (language, scope), np.repeat(np.arange(len(paired)), [p.items for p in paired]))
    return ComparisonRow(
        language=language,
        scope=scope,
        items=sum(p.items for p in paired),
        accuracy={method: estimator.mean(method, values) for method, values in answers.items()},
        difference={
            baseline: estimator.difference(baseline, answers["compass"], answers[baseline])
            for baseline in BASELINES
            if {"compass", baseline} <= answers.keys()
        },
        languages=len(paired),
        chance=float(np.mean([p.chance.mean() for p in paired])),
    )


@dataclass(frozen=True)
class _IntervalEstimator:
    """Intervals of one row. Items are resampled within their language, and languages have equal weight."""

    config: RunConfig
    names: tuple[str, str]
    strata: np.ndarray

    def mean(self, method: str, values: np.ndarray) -> Interval:
        settings, rng = self.config.evaluate, self._rng("accuracy", method)
        return bootstrap(values, strata=self.strata, resamples=settings.resamples, confidence=settings.confidence, rng=rng)

    def difference(self, baseline: str, a: np.ndarray, b: np.ndarray) -> Interval:
        settings, rng = self.config.evaluate, self._rng("difference", baseline)
        return paired_bootstrap(a, b, strata=self.strata, resamples=settings.resamples, confidence=settings.confidence, rng=rng)

    def _rng(self, quantity: str, method: str) -> np.random.Generator:
        return generator(self.config.seed, "report", *self.names, quantity, method)


def _missing(reader: RunReader, config: RunConfig, paired: Sequence[_PairedAnswers]) -> list[str]:
    """Notes on what could not be compared, each once, with its languages."""
    if not paired:
        return [_("No method has been evaluated in any language.")]
    found = {p.language: p for p in paired}
    notes: dict[str, list[str]] = {}
    expected = [method for method in METHODS if method in ("zero_shot", *config.select.methods)]
    for code in config.languages:
        for note in _list_gaps(found.get(code), low_subjects(reader, code), expected):
            notes.setdefault(note, []).append(language_name(code))
    return [f"{note}: {', '.join(names)}." for note, names in notes.items()]


def _list_gaps(found: _PairedAnswers | None, low: frozenset[str], expected: Sequence[str]) -> Iterable[str]:
    if found is None:
        yield _("No evaluation")
        return
    yield from (_("No evaluation of {method}", method=method_name(method)) for method in expected if method not in found.correct)
    if not low:
        yield _("No under-represented subjects")
    elif not found.low.any():
        yield _("No test items of under-represented subjects")
    if found.dropped:
        yield _("{count} items excluded, because not every method answered them", count=found.dropped)
