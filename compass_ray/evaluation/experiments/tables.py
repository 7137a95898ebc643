"""Tables of the results of an experiment, as text for the terminal and the page.

A dash means "not measured", so a failed variant has a row too. Accuracy is in percent, differences and deviations are in
percentage points, divergences in bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from compass_ray.evaluation.experiments.results import ExperimentOutcomes, RemainingGap, SeedStatistics, VariantOutcome
from compass_ray.report.blocks import format_number
from compass_ray.report.comparison import SCOPES, Scope, format_percent, format_points
from compass_ray.report.run_reader import METHODS

TextRows = list[tuple[str, ...]]
_PLUS = "mean ± standard deviation"


@dataclass(frozen=True)
class ResultTable:
    """A table: its kind, its title, and its rows. The first row is the header."""

    kind: str
    title: str
    rows: TextRows


def build_tables(outcomes: ExperimentOutcomes) -> list[ResultTable]:
    """Build every table that has data."""
    return [*_accuracies(outcomes), *_seeds(outcomes), *_gaps(outcomes), _cost(outcomes)]


def _accuracies(outcomes: ExperimentOutcomes) -> Iterator[ResultTable]:
    for scope, title in SCOPES.items():
        if any(scope in outcome.accuracy for outcome in outcomes.variants):
            yield ResultTable("accuracy", f"Accuracy on {title}, percent, mean over languages", _accuracy(outcomes, scope))
        if any(scope in outcome.difference for outcome in outcomes.variants):
            yield ResultTable(
                "difference", f"Difference from {describe_reference(outcomes)} on {title}, points", _difference(outcomes, scope)
            )


def describe_reference(outcomes: ExperimentOutcomes) -> str:
    """Describe the reference that the variants are compared with."""
    chosen = next(outcome for outcome in outcomes.variants if outcome.name == outcomes.against)
    many = len({outcome.reference for outcome in outcomes.variants}) > 1
    return f"{chosen.group} with the same seed" if many else chosen.name


def _accuracy(outcomes: ExperimentOutcomes, scope: Scope) -> TextRows:
    methods = [m for m in outcomes.methods if any(m in o.accuracy.get(scope, {}) for o in outcomes.variants)]
    return [
        ("variant", *(METHODS[m] for m in methods), "items"),
        *(
            (o.name, *(_share(o, scope, m) for m in methods), str(o.items[scope]) if scope in o.items else "–")
            for o in outcomes.variants
        ),
    ]


def _share(outcome: VariantOutcome, scope: Scope, method: str) -> str:
    found = outcome.accuracy.get(scope, {}).get(method)
    return format_percent(found.mean if found else None)


def _difference(outcomes: ExperimentOutcomes, scope: Scope) -> TextRows:
    """Rows of differences. Methods without a difference in any variant, such as zero-shot on one base model, are omitted."""
    found = {o.name: o.difference.get(scope, {}) for o in outcomes.variants if o.name != o.reference}
    moved = {m for by in found.values() for m, d in by.items() if d.is_nonzero}
    methods = [m for m in METHODS if m in moved] or [m for m in METHODS if any(m in by for by in found.values())]
    rows = [(name, *(format_points(by[m].interval if m in by else None) for m in methods)) for name, by in found.items()]
    items = {name: max((d.items for d in by.values()), default=0) for name, by in found.items()}
    return [("variant", *(METHODS[m] for m in methods), "items"), *((*row, str(items[row[0]] or "–")) for row in rows)]


def _gaps(outcomes: ExperimentOutcomes) -> Iterator[ResultTable]:
    if any(outcome.gap for outcome in outcomes.variants):
        served = {METHODS.get(outcome.served, outcome.served) for outcome in outcomes.variants}
        rows = [(o.name, *_gap(o.gap.get(o.served))) for o in outcomes.variants]
        header = ("variant", "gap before, bits", "gap after, bits", "unfilled quota, percent")
        yield ResultTable("gap", f"Divergence from the guide set with the rows of {' or '.join(sorted(served))}", [header, *rows])


def _gap(left: RemainingGap | None) -> tuple[str, ...]:
    if left is None:
        return ("–", "–", "–")
    return (format_number(left.before, 3), format_number(left.after, 3), format_percent(left.unfilled))


def _seeds(outcomes: ExperimentOutcomes) -> Iterator[ResultTable]:
    if not outcomes.seeds:
        return
    for scope, title in SCOPES.items():
        measured = {group.group: group.accuracy[scope] for group in outcomes.seeds}
        differ = {group.group: group.difference[scope] for group in outcomes.seeds if group.difference[scope]}
        if any(measured.values()):
            yield ResultTable("seeds", f"Over seeds: accuracy on {title}, percent, {_PLUS}", _spreads(measured))
        if differ:
            name = f"Over seeds: difference from {describe_reference(outcomes)} on {title}, points, {_PLUS}"
            yield ResultTable("seeds", name, _spreads(differ))
    left = {group.group: group.gap for group in outcomes.seeds}
    if any(left.values()):
        yield ResultTable("seeds", f"Over seeds: remaining divergence, bits, {_PLUS}", _spreads(left, scale=1.0, digits=3))


def _spreads(found: Mapping[str, Mapping[str, SeedStatistics]], *, scale: float = 100.0, digits: int = 1) -> TextRows:
    """One row for each group, one column for each method. Methods that are 0 in all groups are omitted."""
    moved = {m for by in found.values() for m, s in by.items() if s.mean or s.deviation}
    methods = [m for m in METHODS if m in moved]
    seeds = {name: max((s.seeds for s in by.values()), default=0) for name, by in found.items()}
    rows = [(name, str(seeds[name]), *(_spread(by.get(m), scale, digits) for m in methods)) for name, by in found.items()]
    return [("variant", "seeds", *(METHODS[m] for m in methods)), *rows]


def _spread(spread: SeedStatistics | None, scale: float, digits: int) -> str:
    if spread is None:
        return "–"
    mean = format_number(scale * spread.mean, digits).replace("-", "\N{MINUS SIGN}")
    return mean if spread.deviation is None else f"{mean} ± {format_number(scale * spread.deviation, digits)}"


def _cost(outcomes: ExperimentOutcomes) -> ResultTable:
    header = ("variant", "complete artifacts", "reused", "stage seconds", "training seconds", "tokens", "steps", "")
    rows = [
        (
            o.name,
            f"{o.cost.whole} of {o.cost.total}",
            str(o.cost.taken),
            format_number(o.cost.seconds),
            format_number(o.cost.training_seconds),
            _span([cost.tokens for cost in o.training.methods.values()]),
            _span([cost.steps for cost in o.training.methods.values()]),
            "failed" if o.failure else "",
        )
        for o in outcomes.variants
    ]
    return ResultTable("cost", "Cost", [header, *rows])


def _span(values: Sequence[float | None]) -> str:
    """Least and greatest value, or the common one; a dash if a value is unknown.

    >>> _span([5120.0, 9216.0]), _span([40.0, 40.0]), _span([])
    ('5,120 to 9,216', '40', '–')
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "–"
    shown = dict.fromkeys(format_number(round(value)) for value in (min(known), max(known)))
    return " to ".join(shown)
