"""Values of a paper beside those of the runs: accuracy in percent, and differences from a reference row in points.

The paper's values of a group of languages are means over the languages that were run, so both sides have the same languages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compass_ray.evaluation.suites.method_scores import (
    MeasuredMean,
    MethodScores,
    ScoreReader,
    mean_accuracy,
    mean_chance,
    mean_difference,
)
from compass_ray.evaluation.suites.suite_files import PaperRow, Suite, SuiteEntry
from compass_ray.languages import Language, get_language

GROUPS: Mapping[str, Callable[[Language], str]] = {
    "script": lambda language: language.script,
    "family": lambda language: language.family,
    "branch": lambda language: language.branch if language.family == "Indo-European" else language.family,
}
"""Groups of figure 2, and families as a whole. Branches are those of Indo-European beside the other families, as in the paper."""


@dataclass(frozen=True)
class ComparedRow:
    """One row of a table, in the mean over ``languages``."""

    label: str
    """The language or the group; empty for all languages."""
    name: str
    method: str | None
    languages: tuple[str, ...]
    paper: float | None
    paper_difference: float | None
    """From the reference row, in points."""
    reference: str | None
    """Name of the reference row."""
    chance: float | None
    ours: MeasuredMean | None
    difference: MeasuredMean | None
    """From the reference row, paired; None for the reference itself."""

    @property
    def above_chance(self) -> bool | None:
        """Whether the interval is above the chance level; None if it was not measured."""
        return None if self.ours is None or self.chance is None else self.ours.interval.low > self.chance


@dataclass(frozen=True)
class ComparedEntry:
    """A table of the paper, the column that is compared, and whether it has the model and benchmark of the runs."""

    name: str
    column: str
    same_model: bool
    rows: tuple[ComparedRow, ...]


def compare_entry(suite: Suite, name: str, reader: ScoreReader, preset: str | None, languages: Sequence[str]) -> ComparedEntry:
    """Compare one entry with the runs in ``languages``; entries without rows have none."""
    entry = suite.entries[name]
    if entry.kind == "languages":
        own = [code for code in entry.languages if code in languages]
        rows = [row for code in own for row in _rows(entry, entry, code, (code,), reader)]
        return ComparedEntry(name, "", entry.has_model_of(preset), tuple(rows))
    if entry.kind == "groups":
        rows = list(_group_rows(entry, suite.entries[entry.data or ""], reader, languages))
        return ComparedEntry(name, "", entry.has_model_of(preset), tuple(rows))
    if entry.kind not in ("accuracy", "budgets"):
        return ComparedEntry(name, "", entry.has_model_of(preset), ())
    column = entry.column_for(preset)
    shown = entry.columns[column].name if entry.columns else ""
    rows = list(_rows(entry, entry, "", tuple(languages), reader, column))
    return ComparedEntry(name, shown, entry.has_model_of(preset), tuple(rows))


def _group_rows(entry: SuiteEntry, data: SuiteEntry, reader: ScoreReader, languages: Sequence[str]) -> Iterator[ComparedRow]:
    own = [code for code in data.languages if code in languages]
    for kind, label in GROUPS.items():
        groups = {code: label(get_language(code)) for code in own}
        for group in sorted(set(groups.values())):
            members = tuple(code for code in own if groups[code] == group)
            yield from _rows(entry, data, f"{kind}: {group}", members, reader)


def _rows(
    entry: SuiteEntry,
    data: SuiteEntry,
    label: str,
    languages: tuple[str, ...],
    reader: ScoreReader,
    column: int | None = None,
) -> Iterator[ComparedRow]:
    """The rows of ``data``: its ``column``, or the mean of its ``languages``."""
    rows = {row.name: row for row in data.rows}
    reference = rows.get(entry.reference or data.reference or "")
    for row in rows.values():
        base = reference if reference is not None and row.name != reference.name else None
        paper, beside = (_paper(data, each, languages, column) if each else None for each in (row, base))
        own, other = (_scores(each, reader) for each in (row, base))
        yield ComparedRow(
            label=label,
            name=row.name,
            method=row.method,
            languages=languages,
            paper=paper,
            paper_difference=None if paper is None or beside is None else paper - beside,
            reference=reference.name if reference else None,
            chance=mean_chance(own, languages),
            ours=mean_accuracy(own, languages),
            difference=mean_difference(own, other, languages),
        )


def _scores(row: PaperRow | None, reader: ScoreReader) -> MethodScores:
    return reader.scores(row.variant, row.method) if row and row.method else MethodScores({}, {})


def _paper(data: SuiteEntry, row: PaperRow, languages: Sequence[str], column: int | None) -> float | None:
    if column is not None:
        return row.values[column] if row.values else None
    found = [row.values[data.languages.index(code)] for code in languages]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None


def best_rows(entry: SuiteEntry, reader: ScoreReader, languages: Sequence[str]) -> dict[str, int]:
    """Number of languages by the COMPASS row with their highest accuracy, the first of equal ones."""
    rows = [row for row in entry.rows if row.method == "compass"]
    counts = {row.name: 0 for row in rows}
    for code in languages:
        found = {row.name: measured.mean for row in rows if (measured := mean_accuracy(_scores(row, reader), [code]))}
        if found:
            counts[max(found, key=lambda name: found[name])] += 1
    return counts
