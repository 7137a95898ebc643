"""The page of a suite: each table or figure of the paper beside the same of the runs, and ``suite.json`` with the numbers.

The page is built from what exists. An entry without results says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pydantic import TypeAdapter

from compass_ray.artifacts import Artifact, RunDir
from compass_ray.evaluation.experiments import (
    BASE,
    Experiment,
    ExperimentOutcomes,
    VariantAttempt,
    build_tables,
    collect_outcomes,
)
from compass_ray.evaluation.suites.costs import EntryCost, estimate_costs, format_cost
from compass_ray.evaluation.suites.first_run_tables import first_run_blocks
from compass_ray.evaluation.suites.method_scores import MeasuredMean, ScoreReader, languages_of
from compass_ray.evaluation.suites.paper_comparison import ComparedEntry, ComparedRow, best_rows, compare_entry
from compass_ray.evaluation.suites.suite_files import IN_FIRST_RUN, Suite, SuiteEntry
from compass_ray.report.blocks import Block, CodeBlock, ReportHeader, ReportSection, TableBlock, TextBlock, missing_note
from compass_ray.report.comparison import format_percent, format_points, includes_zero
from compass_ray.report.page import PAGE, render
from compass_ray.report.run_reader import RunReader, language_name
from compass_ray.report.sections.source_groups import source_group_blocks

RECORD = "suite.json"
_CONFIDENCE = 0.95
_METHOD = "compass"


def write_page(
    folder: RunDir,
    suite: Suite,
    entries: Mapping[str, SuiteEntry],
    experiment: Experiment,
    attempts: Sequence[VariantAttempt],
    preset: str | None,
) -> dict[str, ComparedEntry]:
    """Write the page and the record into the folder of the suite, and return what they compare, by entry."""
    reader, languages = ScoreReader(attempts), languages_of(experiment)
    compared = {name: compare_entry(suite, name, reader, preset, languages) for name in entries}
    costs = estimate_costs(suite, entries, experiment, preset)
    commands = {name: _command(suite, name, preset, folder) for name in entries}
    sections = [
        _overview(entries, compared, costs),
        *(
            ReportSection(name, entry.title, list(_blocks(entry, compared[name], reader, attempts, languages, commands[name])))
            for name, entry in entries.items()
        ),
        _cost(collect_outcomes(experiment, attempts)),
    ]
    target = Artifact(folder.filesystem, folder.path, RECORD)
    record = TypeAdapter(dict[str, ComparedEntry]).dump_python(compared, mode="json")
    target.store_bytes(RECORD, json.dumps(record, indent=2, ensure_ascii=False).encode())
    header = _header(suite, experiment, preset, languages)
    page = render(folder.path.rsplit("/", 1)[-1], sections, kind="experiment", header=header)
    target.store_bytes(PAGE, page.encode())
    return compared


def _header(suite: Suite, experiment: Experiment, preset: str | None, languages: Sequence[str]) -> ReportHeader:
    seeds = sorted({variant.config.seed for variant in experiment.variants})
    facts = [
        ("Paper", f"{suite.config.title} ({suite.config.source})"),
        ("Preset", preset or "a file"),
        ("Base model", experiment.variants[0].config.train.base_model),
        ("Languages", ", ".join(languages)),
        ("Seeds", ", ".join(map(str, seeds))),
    ]
    return ReportHeader("The tables and figures of the paper beside the same measured here.", facts)


def _overview(
    entries: Mapping[str, SuiteEntry], compared: Mapping[str, ComparedEntry], costs: Mapping[str, EntryCost]
) -> ReportSection:
    rows = [
        (
            entry.title,
            entry.where,
            _state(entry, compared[name]),
            *_main_difference(entry, compared[name]),
            str(len(entry.inconsistencies) or "–"),
            str(costs[name].adapters or "–"),
            format_cost(costs[name].cpu),
            format_cost(costs[name].gpu),
        )
        for name, entry in entries.items()
    ]
    header = ("entry", "paper", "state", "COMPASS less reference: paper", "here", "inconsistencies", "adapters", "CPU", "GPU")
    explanation = (
        f"Accuracy is in percent, with the chance level beside it, and a mean over languages of equal weight. Differences are "
        f"in points, paired over items, with a {_CONFIDENCE:.0%} interval over languages, seeds and shared items. Adapters and "
        f"costs of an entry are those that no earlier entry has. Costs are for the whole entry, whatever has run."
    )
    return ReportSection(
        "overview", "What was compared?", [TextBlock(explanation), TableBlock("Entries", header, rows, numbers=3, filtered=False)]
    )


def _cost(outcomes: ExperimentOutcomes) -> ReportSection:
    """What the runs cost, and whether their methods were trained at equal cost."""
    tables = [table for table in build_tables(outcomes) if table.kind == "cost"]
    blocks: list[Block] = [TextBlock(outcomes.training_cost)] if outcomes.training_cost else []
    blocks += [TableBlock(table.title, table.rows[0], table.rows[1:]) for table in tables]
    return ReportSection("cost", "What did it cost?", blocks)


def _state(entry: SuiteEntry, compared: ComparedEntry) -> str:
    if entry.kind in ("contributions", *IN_FIRST_RUN):
        return "see below"
    wanted = [row for row in compared.rows if row.method]
    done = [row for row in wanted if row.ours]
    return "not run" if not done else "measured" if len(done) == len(wanted) else f"{len(done)} of {len(wanted)} rows"


def _main_difference(entry: SuiteEntry, compared: ComparedEntry) -> tuple[str, str]:
    """COMPASS less the reference, of the paper and here; dashes where COMPASS is the reference."""
    reference = next((row.method for row in compared.rows if row.name == row.reference), None)
    rows = compared.rows if entry.kind == "accuracy" and reference != _METHOD else ()
    found = next((row for row in rows if row.method == _METHOD), None)
    return (_points(found.paper_difference), _measured_points(found.difference)) if found else ("–", "–")


def _blocks(
    entry: SuiteEntry,
    compared: ComparedEntry,
    reader: ScoreReader,
    attempts: Sequence[VariantAttempt],
    languages: Sequence[str],
    command: str,
) -> Iterator[Block]:
    yield TextBlock(f"{entry.where}. {entry.shows}")
    if entry.rows and not compared.same_model and entry.kind in ("accuracy", "budgets", "languages"):
        shown = f" ({compared.column})" if entry.kind == "accuracy" else ""
        yield TextBlock(f"The paper's values{shown} are not of this run's model and data. Compare signs and order, not levels.")
    for text in entry.inconsistencies:
        yield TextBlock(f"Inconsistent in the paper: {text}", tone="caution")
    for text in entry.limits:
        yield TextBlock(f"Limit of the paper's comparison: {text}")
    if entry.on_request:
        yield CodeBlock("It runs only if it is named. Add the other options of this page's command.", command)
    if entry.kind == "contributions":
        yield from _contributions(attempts)
    elif entry.kind in IN_FIRST_RUN:
        yield from _first_run(entry, attempts)
    else:
        yield from _notes(compared.rows, entry.reference)
        yield from _tables(entry, compared, reader, languages)


def _command(suite: Suite, name: str, preset: str | None, folder: RunDir) -> str:
    """The command line that runs one entry."""
    settings = f"--preset {preset}" if preset else "--config FILE"
    data = " --set evaluate.harness.data=FOLDER" if suite.entries[name].tasks else ""
    return f"compass-ray experiment --suite {suite.name} {settings} --run {folder.shown_uri} --only {name}{data}"


def _tables(entry: SuiteEntry, compared: ComparedEntry, reader: ScoreReader, languages: Sequence[str]) -> Iterator[Block]:
    if entry.kind == "budgets":
        yield _budget_table(entry, compared.rows, best_rows(entry, reader, languages))
    elif entry.kind == "accuracy":
        yield _mean_table(entry, compared.rows)
    else:
        yield _label_table(entry, compared.rows)
        yield _full_table(compared.rows)


def _notes(rows: Sequence[ComparedRow], reference: str | None) -> Iterator[Block]:
    """Whether anything is above chance, and how often differences have the paper's sign."""
    if not any(row.ours for row in rows):
        yield missing_note("None of these methods has been evaluated.")
    measured = [row.above_chance for row in rows if row.above_chance is not None]
    if measured and not any(measured):
        yield TextBlock("No method is above the chance level here, so the order of the methods says nothing.", tone="caution")
    pairs = [(row.paper_difference, row.difference) for row in rows if row.paper_difference and row.difference]
    if pairs:
        same = sum((paper > 0) == (ours.mean > 0) for paper, ours in pairs)
        clear = sum(not includes_zero(ours.interval) for _, ours in pairs)
        yield TextBlock(
            f"Differences from {reference or 'the reference'} with the paper's sign: {same} of {len(pairs)}. "
            f"Intervals that exclude 0: {clear}; expected by chance: {(1 - _CONFIDENCE) * len(pairs):.1f}."
        )


def _mean_table(entry: SuiteEntry, rows: Sequence[ComparedRow]) -> TableBlock:
    less = f"less {entry.reference}" if entry.reference else "difference"
    header = ("row", "paper", f"paper, {less}", "chance", "here", f"here, {less}", "languages", "seeds", "items")
    body = [
        (
            row.name,
            _percent(row.paper),
            _points(row.paper_difference),
            format_percent(row.chance),
            _measured(row.ours),
            _measured_points(row.difference),
            *_counts(row.ours),
        )
        for row in rows
    ]
    return TableBlock(entry.title, header, body, filtered=False)


def _budget_table(entry: SuiteEntry, rows: Sequence[ComparedRow], best: Mapping[str, int]) -> TableBlock:
    header = (
        "budget",
        "paper, languages with their best",
        "here, languages with their best",
        "chance",
        "here",
        "here, less target",
    )
    body = [
        (
            row.name,
            "–" if row.paper is None else f"{row.paper:.0f}",
            str(best[row.name]) if row.ours and row.name in best else "–",
            format_percent(row.chance),
            _measured(row.ours),
            _measured_points(row.difference),
        )
        for row in rows
    ]
    return TableBlock(entry.title, header, body, filtered=False)


def _label_table(entry: SuiteEntry, rows: Sequence[ComparedRow]) -> TableBlock:
    """COMPASS and the reference by language or group."""
    reference = {row.label: row.ours for row in rows if row.name == row.reference}
    body = [
        (
            _label(row),
            str(len(row.languages)),
            _percent(row.paper),
            _points(row.paper_difference),
            format_percent(row.chance),
            _measured(reference.get(row.label)),
            _measured(row.ours),
            _measured_points(row.difference),
        )
        for row in rows
        if row.method == _METHOD
    ]
    name = entry.reference or "reference"
    paper, here = ("paper, COMPASS", f"paper, less {name}"), (f"here, {name}", "here, COMPASS", f"here, less {name}")
    header = ("", "languages", *paper, "chance", *here)
    return TableBlock(f"{entry.title}: COMPASS", header, body, filtered=False)


def _full_table(rows: Sequence[ComparedRow]) -> TableBlock:
    header = ("", "row", "paper", "chance", "here")
    body = [(_label(row), row.name, _percent(row.paper), format_percent(row.chance), _measured(row.ours)) for row in rows]
    return TableBlock("All rows", header, body, numbers=2, folded=True, filtered=False)


def _label(row: ComparedRow) -> str:
    return language_name(row.label) if row.languages == (row.label,) else row.label


def _contributions(attempts: Sequence[VariantAttempt]) -> Iterator[Block]:
    """Sources of the rows that COMPASS added, over the first run of the unchanged preset."""
    base = [attempt for attempt in attempts if attempt.variant.group == BASE][:1]
    blocks = [block for attempt in base for block in _sources(RunReader(attempt.run), attempt.variant.config.languages)]
    yield from blocks or [missing_note("COMPASS has selected no rows.")]


def _first_run(entry: SuiteEntry, attempts: Sequence[VariantAttempt]) -> Iterator[Block]:
    """What the first run of the unchanged preset has of a simulation, or of other benchmarks."""
    for attempt in [attempt for attempt in attempts if attempt.variant.group == BASE][:1]:
        yield from first_run_blocks(entry, attempt.variant.config, attempt.run)


def _sources(reader: RunReader, languages: Sequence[str]) -> Iterator[Block]:
    added: dict[str, dict[str, int]] = {}
    for code in languages:
        if (table := reader.selected_table(_METHOD, code)) is not None:
            rows = zip(table["language"].to_pylist(), table["role"].to_pylist(), strict=True)
            added[code] = dict(Counter(source for source, role in rows if role == "auxiliary"))
    return source_group_blocks(added, reader.pool_languages)


def _percent(value: float | None) -> str:
    """A value of the paper, which is in percent."""
    return "–" if value is None else f"{value:.1f}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _measured(found: MeasuredMean | None) -> str:
    if found is None:
        return "–"
    numbers = (found.mean, found.interval.low, found.interval.high)
    mean, low, high = (format_percent(number).replace("-", "\N{MINUS SIGN}") for number in numbers)
    return f"{mean} [{low}, {high}]"


def _measured_points(found: MeasuredMean | None) -> str:
    return format_points(found.interval if found else None)


def _counts(found: MeasuredMean | None) -> tuple[str, str, str]:
    return (str(found.languages), str(found.seeds), f"{found.items:,}") if found else ("–", "–", "–")
