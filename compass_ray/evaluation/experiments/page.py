"""Writes what an experiment found: ``experiment.json`` for programs and ``index.html`` for people.

Key property: both are made of the variants' artefacts alone and anew each time, and the page needs no other file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import TypeAdapter

from compass_ray.artifacts import Artifact, RunDir
from compass_ray.evaluation.experiments import plots
from compass_ray.evaluation.experiments.results import ExperimentOutcomes
from compass_ray.evaluation.experiments.tables import ResultTable, build_tables, describe_reference
from compass_ray.report.blocks import Block, PlotsBlock, ReportSection, TableBlock, TextBlock, missing_note, plot_image
from compass_ray.report.comparison import SCOPES, includes_zero
from compass_ray.report.page import PAGE, render

RECORD = "experiment.json"
_MAX_PLOTTED_VARIANTS = 24
"""A picture of more variants would be taller than a screen; the tables have them."""


def write_report(where: RunDir, outcomes: ExperimentOutcomes) -> None:
    """Put both files beside the variants."""
    folder = Artifact(where.filesystem, where.path, RECORD)
    found = TypeAdapter(ExperimentOutcomes).dump_python(outcomes, mode="json")
    folder.store_bytes(RECORD, json.dumps(found, indent=2, ensure_ascii=False).encode())
    folder.store_bytes(PAGE, render(where.path.rsplit("/", 1)[-1], build_sections(outcomes), of="experiment").encode())


def build_sections(outcomes: ExperimentOutcomes) -> list[ReportSection]:
    """The page's sections."""
    tables = build_tables(outcomes)
    seeds = [_table(listing) for listing in tables if listing.kind == "seeds"]
    return [
        ReportSection("variants", "What was varied?", list(_variants(outcomes))),
        ReportSection("accuracy", "What did it do to accuracy?", list(_accuracy(outcomes, tables))),
        *([ReportSection("seeds", "How much is chance?", [TextBlock(_SEEDS), *seeds])] if seeds else []),
        ReportSection("gap", "What did it do to the gap?", list(_gap(outcomes, tables))),
        ReportSection(
            "cost", "What did it take?", [TextBlock(_COST), *(_table(listing) for listing in tables if listing.kind == "cost")]
        ),
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


def _variants(outcomes: ExperimentOutcomes) -> Iterator[Block]:
    rows = [(o.name, "; ".join(o.settings) or "nothing") for o in outcomes.variants]
    yield TextBlock(
        f"{len(rows)} variants, compared with {describe_reference(outcomes)}. Each variant is a run with its own report, in the "
        f"folder of its name."
    )
    yield TableBlock("What each variant changes", ("variant", "changes"), rows, numbers=2)
    for reason, names in outcomes.failures.items():
        yield missing_note(f"Failed: {', '.join(names)}: {reason}")


def _accuracy(outcomes: ExperimentOutcomes, tables: list[ResultTable]) -> Iterator[Block]:
    for scope, title in SCOPES.items():
        own = [listing for listing in tables if listing.kind in ("accuracy", "difference") and title in listing.title]
        yield from (_table(listing) for listing in own)
        if own and len(outcomes.variants) <= _MAX_PLOTTED_VARIANTS:
            name = f"Accuracy on {title}"
            figure = plots.plot_accuracy(outcomes.variants, scope, outcomes.confidence, name)
            yield PlotsBlock(
                [plot_image(f"accuracy-{scope}.png", figure, f"{name}: every method in every variant, as in the table.")]
            )
    if any(outcome.accuracy for outcome in outcomes.variants):
        yield TextBlock(_explain_differences(outcomes))
    else:
        yield missing_note("No variant has been evaluated.")


def _explain_differences(outcomes: ExperimentOutcomes) -> str:
    """How to read the differences, with how many of them there are: some exclude 0 by chance."""
    shown = [d for outcome in outcomes.variants for by in outcome.difference.values() for d in by.values() if d.is_nonzero]
    clear = sum(not includes_zero(d.interval) for d in shown)
    told = (
        f"Languages weigh the same. A difference is over the items that both variants answered, paired, with its "
        f"{outcomes.confidence:.0%} interval by bootstrap over items; it says nothing of another seed."
    )
    chance = f"Differences: {len(shown)}; intervals without 0: {clear}; to be expected of chance alone: "
    return f"{told} {chance}{(1 - outcomes.confidence) * len(shown):.1f}." if shown else told


def _gap(outcomes: ExperimentOutcomes, tables: list[ResultTable]) -> Iterator[Block]:
    own = [_table(listing) for listing in tables if listing.kind == "gap"]
    if not own:
        yield missing_note("No variant has selected rows.")
        return
    yield from own
    if len(outcomes.variants) <= _MAX_PLOTTED_VARIANTS:
        figure = plots.plot_gaps(outcomes.variants, "Divergence by variant")
        yield PlotsBlock(
            [plot_image("gap.png", figure, "Divergence from the guide set by variant and method, before and after.")]
        )


def _table(listing: ResultTable) -> TableBlock:
    return TableBlock(listing.title, listing.rows[0], listing.rows[1:])
