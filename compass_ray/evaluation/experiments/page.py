"""Write the results of an experiment: ``experiment.json`` for programs and ``index.html`` for people.

Both depend only on the artifacts of the variants and are rewritten each time. The page needs no other file.
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
from compass_ray.report.sections.measures import EXPLANATION

RECORD = "experiment.json"
_MAX_PLOTTED_VARIANTS = 24
"""A plot of more variants would be taller than a screen; the tables show all."""


def write_report(folder: RunDir, outcomes: ExperimentOutcomes) -> None:
    """Write both files into the folder of the experiment."""
    target = Artifact(folder.filesystem, folder.path, RECORD)
    record = TypeAdapter(ExperimentOutcomes).dump_python(outcomes, mode="json")
    target.store_bytes(RECORD, json.dumps(record, indent=2, ensure_ascii=False).encode())
    target.store_bytes(PAGE, render(folder.path.rsplit("/", 1)[-1], build_sections(outcomes), kind="experiment").encode())


def build_sections(outcomes: ExperimentOutcomes) -> list[ReportSection]:
    """Build the sections of the page."""
    tables = build_tables(outcomes)
    seeds, measures = ([_table(listing) for listing in tables if listing.kind == kind] for kind in ("seeds", "measures"))
    return [
        ReportSection("variants", "What varies?", list(_variants(outcomes))),
        ReportSection("accuracy", "How does accuracy change?", list(_accuracy(outcomes, tables))),
        *([ReportSection("measures", "What do other measures say?", [*measures, TextBlock(EXPLANATION)])] if measures else []),
        *([ReportSection("seeds", "How large is the variation over seeds?", [TextBlock(_SEEDS), *seeds])] if seeds else []),
        ReportSection("gap", "How does the gap change?", list(_gap(outcomes, tables))),
        ReportSection(
            "cost", "What did it cost?", [TextBlock(_COST), *(_table(listing) for listing in tables if listing.kind == "cost")]
        ),
    ]


_SEEDS = (
    "Results of variants that differ only in the seed. The seed affects which subjects are thinned, which rows are sampled, "
    "and how adapters are trained. Differences are between variants with the same seed. The standard deviation is that of "
    "single runs, not of their mean."
)
_COST = (
    "An artifact that two variants share is made in the first and reused in the second. Stage seconds count the variant's "
    "own stages over all attempts. Training seconds count all its adapters, including reused ones. Tokens and steps are those of "
    "one adapter, means over languages: one number if all methods have it, otherwise the least and the greatest."
)


def _variants(outcomes: ExperimentOutcomes) -> Iterator[Block]:
    rows = [(o.name, "; ".join(o.settings) or "none") for o in outcomes.variants]
    yield TextBlock(
        f"{len(rows)} variants, compared with {describe_reference(outcomes)}. Each variant is a run with its own report, in a "
        f"folder of the same name."
    )
    yield TableBlock("What each variant changes", ("variant", "changes"), rows, numbers=2)
    for reason, names in outcomes.failures.items():
        yield missing_note(f"Failed: {', '.join(names)}: {reason}")


def _accuracy(outcomes: ExperimentOutcomes, tables: list[ResultTable]) -> Iterator[Block]:
    if outcomes.training_cost:
        yield TextBlock(outcomes.training_cost)
    for scope, title in SCOPES.items():
        own = [listing for listing in tables if listing.kind in ("accuracy", "difference") and title in listing.title]
        yield from (_table(listing) for listing in own)
        if own and len(outcomes.variants) <= _MAX_PLOTTED_VARIANTS:
            name = f"Accuracy on {title}"
            figure = plots.plot_accuracy(outcomes.variants, scope, outcomes.confidence, name)
            yield PlotsBlock(
                [
                    plot_image(
                        f"accuracy-{scope}.svg",
                        figure,
                        f"{name} by method and variant, as in the table.",
                    )
                ]
            )
    if any(outcome.accuracy for outcome in outcomes.variants):
        yield TextBlock(_explain_differences(outcomes))
    else:
        yield missing_note("No variant has been evaluated.")


def _explain_differences(outcomes: ExperimentOutcomes) -> str:
    """Explain the differences, and count them: some intervals exclude 0 by chance."""
    shown = [d for outcome in outcomes.variants for by in outcome.difference.values() for d in by.values() if d.is_nonzero]
    clear = sum(not includes_zero(d.interval) for d in shown)
    text = (
        f"All languages have the same weight. A difference is paired over the items that both variants answered, with a "
        f"{outcomes.confidence:.0%} bootstrap interval over items. The interval does not include the variation over seeds."
    )
    chance = f"Differences: {len(shown)}; intervals that exclude 0: {clear}; expected by chance: "
    return f"{text} {chance}{(1 - outcomes.confidence) * len(shown):.1f}." if shown else text


def _gap(outcomes: ExperimentOutcomes, tables: list[ResultTable]) -> Iterator[Block]:
    own = [_table(listing) for listing in tables if listing.kind == "gap"]
    if not own:
        yield missing_note("No variant has selected rows.")
        return
    yield from own
    if len(outcomes.variants) <= _MAX_PLOTTED_VARIANTS:
        figure = plots.plot_gaps(outcomes.variants, "Divergence by variant")
        yield PlotsBlock(
            [plot_image("gap.svg", figure, "Divergence from the guide set before and after selection, by variant and method.")]
        )


def _table(listing: ResultTable) -> TableBlock:
    return TableBlock(listing.title, listing.rows[0], listing.rows[1:], numbers=listing.names, folded=listing.folded)
