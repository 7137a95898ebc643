"""The outcomes of an experiment as tables of text, for the terminal and the page alike.

Key property: a dash stands for what was not measured, so a failed variant has its row like the others. Accuracy is in
percent, differences and deviations are in percentage points, divergences in bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from compass_ray.experiments.outcomes import GapLeft, Outcome, Outcomes, Spread
from compass_ray.report.blocks import number
from compass_ray.report.comparison import SCOPES, Scope, percent, points
from compass_ray.report.evidence import METHODS

Rows = list[tuple[str, ...]]
_PLUS = "mean ± standard deviation"


@dataclass(frozen=True)
class Listing:
    """A table: what it is of, its title, and its rows, the header first."""

    of: str
    title: str
    rows: Rows


def listings(outcomes: Outcomes) -> list[Listing]:
    """All tables that have something to show."""
    return [*_accuracies(outcomes), *_seeds(outcomes), *_gaps(outcomes), _cost(outcomes)]


def _accuracies(outcomes: Outcomes) -> Iterator[Listing]:
    for scope, title in SCOPES.items():
        if any(scope in outcome.accuracy for outcome in outcomes.variants):
            yield Listing("accuracy", f"Accuracy on {title}, percent, mean over languages", _accuracy(outcomes, scope))
        if any(scope in outcome.difference for outcome in outcomes.variants):
            yield Listing("difference", f"Difference from {against(outcomes)} on {title}, points", _difference(outcomes, scope))


def against(outcomes: Outcomes) -> str:
    """What the variants are compared with, in words."""
    chosen = next(outcome for outcome in outcomes.variants if outcome.name == outcomes.against)
    many = len({outcome.reference for outcome in outcomes.variants}) > 1
    return f"{chosen.group} with the same seed" if many else chosen.name


def _accuracy(outcomes: Outcomes, scope: Scope) -> Rows:
    methods = [m for m in outcomes.methods if any(m in o.accuracy.get(scope, {}) for o in outcomes.variants)]
    return [
        ("variant", *(METHODS[m] for m in methods), "items"),
        *(
            (o.name, *(_share(o, scope, m) for m in methods), str(o.items[scope]) if scope in o.items else "–")
            for o in outcomes.variants
        ),
    ]


def _share(outcome: Outcome, scope: Scope, method: str) -> str:
    found = outcome.accuracy.get(scope, {}).get(method)
    return percent(found.mean if found else None)


def _difference(outcomes: Outcomes, scope: Scope) -> Rows:
    """Methods that differ in no variant, as zero-shot does on one base model, are left out."""
    found = {o.name: o.difference.get(scope, {}) for o in outcomes.variants if o.name != o.reference}
    moved = {m for by in found.values() for m, d in by.items() if d.moved}
    methods = [m for m in METHODS if m in moved] or [m for m in METHODS if any(m in by for by in found.values())]
    rows = [(name, *(points(by[m].interval if m in by else None) for m in methods)) for name, by in found.items()]
    items = {name: max((d.items for d in by.values()), default=0) for name, by in found.items()}
    return [("variant", *(METHODS[m] for m in methods), "items"), *((*row, str(items[row[0]] or "–")) for row in rows)]


def _gaps(outcomes: Outcomes) -> Iterator[Listing]:
    if any(outcome.gap for outcome in outcomes.variants):
        served = {METHODS.get(outcome.served, outcome.served) for outcome in outcomes.variants}
        rows = [(o.name, *_gap(o.gap.get(o.served))) for o in outcomes.variants]
        header = ("variant", "gap before, bits", "gap left, bits", "quota not filled, percent")
        yield Listing("gap", f"Divergence from the guide set with the rows of {' or '.join(sorted(served))}", [header, *rows])


def _gap(left: GapLeft | None) -> tuple[str, ...]:
    if left is None:
        return ("–", "–", "–")
    return (number(left.before, 3), number(left.after, 3), percent(left.unfilled))


def _seeds(outcomes: Outcomes) -> Iterator[Listing]:
    if not outcomes.seeds:
        return
    for scope, title in SCOPES.items():
        measured = {group.group: group.accuracy[scope] for group in outcomes.seeds}
        differ = {group.group: group.difference[scope] for group in outcomes.seeds if group.difference[scope]}
        if any(measured.values()):
            yield Listing("seeds", f"Over seeds: accuracy on {title}, percent, {_PLUS}", _spreads(measured))
        if differ:
            name = f"Over seeds: difference from {against(outcomes)} on {title}, points, {_PLUS}"
            yield Listing("seeds", name, _spreads(differ))
    left = {group.group: group.gap for group in outcomes.seeds}
    if any(left.values()):
        yield Listing("seeds", f"Over seeds: divergence left, bits, {_PLUS}", _spreads(left, scale=1.0, digits=3))


def _spreads(found: Mapping[str, Mapping[str, Spread]], *, scale: float = 100.0, digits: int = 1) -> Rows:
    """A row a group, a column a method; methods that stand still over all of them at 0 are left out."""
    moved = {m for by in found.values() for m, s in by.items() if s.mean or s.deviation}
    methods = [m for m in METHODS if m in moved]
    seeds = {name: max((s.seeds for s in by.values()), default=0) for name, by in found.items()}
    rows = [(name, str(seeds[name]), *(_spread(by.get(m), scale, digits) for m in methods)) for name, by in found.items()]
    return [("variant", "seeds", *(METHODS[m] for m in methods)), *rows]


def _spread(spread: Spread | None, scale: float, digits: int) -> str:
    if spread is None:
        return "–"
    mean = number(scale * spread.mean, digits).replace("-", "\N{MINUS SIGN}")
    return mean if spread.deviation is None else f"{mean} ± {number(scale * spread.deviation, digits)}"


def _cost(outcomes: Outcomes) -> Listing:
    header = ("variant", "artefacts", "taken over", "seconds here", "seconds of training", "")
    rows = [
        (
            o.name,
            f"{o.cost.whole} of {o.cost.total}",
            str(o.cost.taken),
            number(o.cost.seconds),
            number(o.cost.training_seconds),
            "failed" if o.failure else "",
        )
        for o in outcomes.variants
    ]
    return Listing("cost", "What it took", [header, *rows])
