"""Writes what an experiment found: ``experiment.json`` for programs and ``index.html`` for people.

Key property: both are made of the variants' artefacts alone and anew each time, and the page needs no other file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import TypeAdapter

from compass_ray.artifacts import Artifact, RunDir
from compass_ray.experiments import pictures
from compass_ray.experiments.outcomes import Outcomes
from compass_ray.experiments.tables import Listing, against, listings
from compass_ray.report.blocks import Block, Pictures, Section, Table, Text, missing, picture
from compass_ray.report.comparison import SCOPES, includes_zero
from compass_ray.report.page import PAGE, render

RECORD = "experiment.json"
_MOST_DRAWN = 24
"""A picture of more variants would be taller than a screen; the tables have them."""


def write(where: RunDir, outcomes: Outcomes) -> None:
    """Put both files beside the variants."""
    folder = Artifact(where.filesystem, where.path, RECORD)
    found = TypeAdapter(Outcomes).dump_python(outcomes, mode="json")
    folder.store_bytes(RECORD, json.dumps(found, indent=2, ensure_ascii=False).encode())
    folder.store_bytes(PAGE, render(where.path.rsplit("/", 1)[-1], sections(outcomes), of="experiment").encode())


def sections(outcomes: Outcomes) -> list[Section]:
    """The page's sections."""
    tables = listings(outcomes)
    seeds = [_table(listing) for listing in tables if listing.of == "seeds"]
    return [
        Section("variants", "What was varied?", list(_variants(outcomes))),
        Section("accuracy", "What did it do to accuracy?", list(_accuracy(outcomes, tables))),
        *([Section("seeds", "How much is chance?", [Text(_SEEDS), *seeds])] if seeds else []),
        Section("gap", "What did it do to the gap?", list(_gap(outcomes, tables))),
        Section("cost", "What did it take?", [Text(_COST), *(_table(listing) for listing in tables if listing.of == "cost")]),
    ]


_SEEDS = (
    "Variants that differ by seed alone, taken together. A seed decides which subjects are thinned, what is sampled, and "
    "how adapters are trained. Differences are between variants with the same seed. The deviation is that of single "
    "runs, not of their mean."
)
_COST = (
    "An artefact that is made of the same things in two variants is made in the first of them and taken over by the other. "
    "Seconds here are those of the variant's own stages over all attempts; seconds of training are those of all its "
    "adapters, wherever they were made."
)


def _variants(outcomes: Outcomes) -> Iterator[Block]:
    rows = [(o.name, "; ".join(o.settings) or "nothing") for o in outcomes.variants]
    yield Text(
        f"{len(rows)} variants, compared with {against(outcomes)}. Each is a run of its own, with its own report, in the "
        f"folder of its name."
    )
    yield Table("What each variant changes", ("variant", "changes"), rows, numbers=2)
    for reason, names in outcomes.failures.items():
        yield missing(f"Failed: {', '.join(names)}: {reason}")


def _accuracy(outcomes: Outcomes, tables: list[Listing]) -> Iterator[Block]:
    for scope, title in SCOPES.items():
        own = [listing for listing in tables if listing.of in ("accuracy", "difference") and title in listing.title]
        yield from (_table(listing) for listing in own)
        if own and len(outcomes.variants) <= _MOST_DRAWN:
            name = f"Accuracy on {title}"
            figure = pictures.accuracy(outcomes.variants, scope, outcomes.confidence, name)
            yield Pictures([picture(f"accuracy-{scope}.png", figure, f"{name}: every method in every variant, as in the table.")])
    if any(outcome.accuracy for outcome in outcomes.variants):
        yield Text(_reading(outcomes))
    else:
        yield missing("No variant has been evaluated.")


def _reading(outcomes: Outcomes) -> str:
    """How to read the differences, with how many of them there are: some exclude 0 by chance."""
    shown = [d for outcome in outcomes.variants for by in outcome.difference.values() for d in by.values() if d.moved]
    clear = sum(not includes_zero(d.interval) for d in shown)
    told = (
        f"Languages weigh the same. A difference is over the items that both variants answered, paired, with its "
        f"{outcomes.confidence:.0%} interval by bootstrap over items; it says nothing of another seed."
    )
    chance = f"Differences: {len(shown)}; intervals without 0: {clear}; to be expected of chance alone: "
    return f"{told} {chance}{(1 - outcomes.confidence) * len(shown):.1f}." if shown else told


def _gap(outcomes: Outcomes, tables: list[Listing]) -> Iterator[Block]:
    own = [_table(listing) for listing in tables if listing.of == "gap"]
    if not own:
        yield missing("No variant has selected rows.")
        return
    yield from own
    if len(outcomes.variants) <= _MOST_DRAWN:
        figure = pictures.gaps(outcomes.variants, "Divergence by variant")
        yield Pictures([picture("gap.png", figure, "Divergence from the guide set by variant and method, before and after.")])


def _table(listing: Listing) -> Table:
    return Table(listing.title, listing.rows[0], listing.rows[1:])
