"""Tables of the results of an experiment, as text for the terminal and the page.

A dash means "not measured", so a failed variant has a row too. Accuracy and probability are in percent, differences and
deviations in percentage points, divergences in bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from compass_ray.evaluation.experiments.results import (
    ExperimentOutcomes,
    MethodMeasures,
    RemainingGap,
    SeedStatistics,
    VariantOutcome,
)
from compass_ray.report.blocks import format_number
from compass_ray.report.comparison import SCOPES, Scope, format_percent, format_points
from compass_ray.report.measures import MEASURE_SCOPES, MeasureScope
from compass_ray.report.run_reader import METHODS
from compass_ray.report.sections.measures import PRIMARY_HEADER, SECONDARY_HEADER, format_primary, format_secondary

TextRows = list[tuple[str, ...]]
_PLUS = "mean ± standard deviation"


@dataclass(frozen=True)
class ResultTable:
    """A table: its kind, its title, and its rows. The first row is the header."""

    kind: str
    title: str
    rows: TextRows
    names: int = 1
    """Number of columns that name the row."""
    folded: bool = False
    """A detail, which the page folds and the terminal leaves out."""


def build_tables(outcomes: ExperimentOutcomes) -> list[ResultTable]:
    """Build every table that has data."""
    return [*_accuracies(outcomes), *_measures(outcomes), *_seeds(outcomes), *_gaps(outcomes), _cost(outcomes)]


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
        ("variant", "chance", *(METHODS[m] for m in methods), "items"),
        *(
            (
                o.name,
                format_percent(o.chance.get(scope)),
                *(_share(o, scope, m) for m in methods),
                str(o.items[scope]) if scope in o.items else "–",
            )
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


def _measures(outcomes: ExperimentOutcomes) -> Iterator[ResultTable]:
    """The primary measures of the first scope that was measured; other scopes, measures and families are folded."""
    scopes = [scope for scope in MEASURE_SCOPES if any(scope in outcome.measures for outcome in outcomes.variants)]
    for scope in scopes:
        title = f"Primary measures on {MEASURE_SCOPES[scope]}, mean over families and languages"
        yield ResultTable("measures", title, _primary(outcomes, scope), names=2, folded=scope != scopes[0])
    for scope in scopes:
        found = list(_measured_methods(outcomes, scope))
        rows = [(variant, METHODS[method], *format_secondary(each.mean)) for variant, method, each in found]
        title = f"Secondary measures on {MEASURE_SCOPES[scope]}, mean over families and languages"
        yield ResultTable("measures", title, [("variant", "method", *SECONDARY_HEADER), *rows], names=2, folded=True)
        families = [
            (
                variant,
                METHODS[method],
                family,
                *format_primary(summary),
                format_percent(summary.accuracy_by_bytes),
                str(summary.items),
            )
            for variant, method, each in found
            for family, summary in each.families.items()
        ]
        header = ("variant", "method", "family", *PRIMARY_HEADER, "accuracy by bytes, %", "items")
        title = f"By family of items on {MEASURE_SCOPES[scope]}, mean over languages"
        yield ResultTable("measures", title, [header, *families], names=3, folded=True)


def _measured_methods(outcomes: ExperimentOutcomes, scope: MeasureScope) -> Iterator[tuple[str, str, MethodMeasures]]:
    """Variant, method and its measures, variant by variant."""
    for outcome in outcomes.variants:
        for method, measures in outcome.measures.get(scope, {}).items():
            yield outcome.name, method, measures


def _primary(outcomes: ExperimentOutcomes, scope: MeasureScope) -> TextRows:
    texts = {o.name: o.text_bits_per_byte for o in outcomes.variants}
    has_text = any(texts.values())
    rows = [
        (
            variant,
            METHODS[method],
            *format_primary(each.mean),
            str(each.mean.items),
            *((format_number(texts[variant].get(method), 3),) if has_text else ()),
        )
        for variant, method, each in _measured_methods(outcomes, scope)
    ]
    return [("variant", "method", *PRIMARY_HEADER, "items", *(("text, bits per byte",) if has_text else ())), *rows]


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
    yield from _measure_seeds(outcomes)
    left = {group.group: group.gap for group in outcomes.seeds}
    if any(left.values()):
        yield ResultTable("seeds", f"Over seeds: remaining divergence, bits, {_PLUS}", _spreads(left, scale=1.0, digits=3))


def _measure_seeds(outcomes: ExperimentOutcomes) -> Iterator[ResultTable]:
    scopes = [scope for scope in MEASURE_SCOPES if any(scope in group.measures for group in outcomes.seeds)]
    for scope in scopes:
        rows = [
            (
                group.group,
                METHODS[method],
                str(by["probability"].seeds),
                _spread(by.get("bits_per_byte"), 1.0, 3),
                _spread(by.get("probability"), 100.0, 2),
            )
            for group in outcomes.seeds
            for method, by in group.measures.get(scope, {}).items()
        ]
        header = ("variant", "method", "seeds", "bits per byte", "probability, %")
        name = f"Over seeds: primary measures on {MEASURE_SCOPES[scope]}, {_PLUS}"
        yield ResultTable("seeds", name, [header, *rows], names=2, folded=scope != scopes[0])


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
