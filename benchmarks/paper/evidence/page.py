"""The page of a try, for a sceptical reader: question, design, figures, tables, what is not shown, and the records.

``index.html`` needs no other file. ``analysis.json`` holds the numbers of the page. Both are made from measurements only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from benchmarks.paper.evidence.analysis import Analysis, Contrast
from benchmarks.paper.evidence.measurements import MeasurementStore
from benchmarks.paper.evidence.outcome import (
    NAMES,
    describe_go,
    describe_harm,
    describe_outcome,
    format_interval,
    format_share,
    format_value,
)
from benchmarks.paper.evidence.protocol import ZERO_SHOT, ProtocolFile, is_evaluation
from compass_ray.report.blocks import Block, PlotsBlock, ReportSection, TableBlock, TextBlock, missing_note, plot_image
from compass_ray.report.page import PAGE, render
from compass_ray.report.style import METHOD_STYLES, OTHER_STYLE, new_figure, with_style

RECORD = "analysis.json"
_PLOTTED = ("oracle", "compass_deficit", "compass_ratio", "round_robin", "random", "placebo")


def write_page(file: ProtocolFile, store: MeasurementStore, analysis: Analysis) -> list[str]:
    """Write the page and its record into the folder of the try; returns lines for the terminal."""
    folder = store.folder / analysis.scores.attempt
    record = json.dumps(record_of(file, analysis), indent=1, ensure_ascii=False, sort_keys=True)
    (folder / RECORD).write_text(record + "\n", "utf-8")
    page = render(f"evidence, {analysis.scores.attempt}", build_sections(file, store, analysis), kind="experiment")
    (folder / PAGE).write_text(page, "utf-8")
    return [*_terminal_table(analysis), describe_go(analysis), *describe_outcome(analysis), f"page: {folder / PAGE}"]


def record_of(file: ProtocolFile, analysis: Analysis) -> dict[str, Any]:
    """The numbers of the page, for programs."""
    return {
        "try": analysis.scores.attempt,
        "protocol": file.sha256,
        "frozen": file.frozen,
        "languages": {code: analysis.excluded.get(code, "counts") for code in analysis.scores.languages},
        "at_chance": list(analysis.at_chance),
        "deviations": list(analysis.scores.deviations),
        "means": {f"{method} {measure}": value for (method, measure), value in analysis.means.items()},
        "chance": analysis.chance,
        "contrasts": [_contrast_record(each) for each in analysis.contrasts],
        "families": [_contrast_record(each) for each in analysis.families],
        "elsewhere": [_contrast_record(each) for each in analysis.elsewhere],
        "text": [_contrast_record(each) for each in analysis.texts],
        "claims": [
            {
                "method": claim.method,
                "against": claim.against,
                "corrected_p": dict(claim.corrected),
                "verdict": claim.verdict(analysis.scores.protocol.claims.level),
            }
            for claim in analysis.claims
        ],
        "no_harm": [
            {**_contrast_record(each.contrast), "margin": each.margin, "excluded": each.is_excluded} for each in analysis.harms
        ],
        "signal_to_noise": dict(analysis.noise),
        "least_corrected_p": analysis.least_p,
        "least_detectable": {" ".join(key): list(value) for key, value in analysis.detectable.items()},
        "cost": asdict(analysis.cost) | {"equal": analysis.cost.is_equal},
        "outcome": list(describe_outcome(analysis)),
    }


def _contrast_record(each: Contrast) -> dict[str, Any]:
    def ends(interval: Any) -> list[float | None] | None:
        values = (interval.mean, interval.low, interval.high) if interval else None
        return [float(v) if np.isfinite(v) else None for v in values] if values else None

    return {
        "a": each.a,
        "b": each.b,
        "measure": each.measure,
        "group": {name: value for name, value in asdict(each.group).items() if value is not None},
        "mean": each.mean,
        "interval": ends(each.interval),
        "bootstrap": ends(each.bootstrap),
        "p_value": each.p_value,
        "wins": asdict(each.wins),
        "by_language": {code: ends(interval) for code, interval in each.by_language.items()},
        "counted": list(each.counted),
        "deviation": each.deviation if np.isfinite(each.deviation) else None,
        "seeds": each.seeds,
        "share": ends(each.share),
    }


def build_sections(file: ProtocolFile, store: MeasurementStore, analysis: Analysis) -> list[ReportSection]:
    """The sections of the page."""
    return [
        ReportSection("question", "What was asked, and what came out?", list(_outcome(file, analysis))),
        ReportSection("design", "How was it measured?", list(_design(file, analysis))),
        ReportSection("claims", "Does COMPASS beat the others at equal cost?", list(_claims(analysis))),
        ReportSection("languages", "In which languages and families?", list(_languages(analysis))),
        ReportSection(
            "controls", "Are placebo and oracle where they should be, and is anything harmed?", list(_controls(analysis))
        ),
        ReportSection("power", "What could this size have shown?", list(_power(analysis))),
        ReportSection("limits", "What is not shown?", list(_limits(analysis))),
        ReportSection("records", "Where does each number come from?", list(_records(file, store, analysis))),
    ]


def _outcome(file: ProtocolFile, analysis: Analysis) -> Iterator[Block]:
    yield TextBlock(file.protocol.question)
    for sentence in describe_outcome(analysis):
        yield TextBlock(sentence, tone="verdict")
    if not is_evaluation(analysis.scores.attempt):
        yield TextBlock(describe_go(analysis), tone="verdict")


def _design(file: ProtocolFile, analysis: Analysis) -> Iterator[Block]:
    protocol, cost = file.protocol, analysis.cost
    models, size = protocol.models_of(analysis.scores.attempt), protocol.material_of(analysis.scores.attempt)
    frozen = "It was frozen with this hash." if file.frozen == file.sha256 else "It is not frozen."
    yield TextBlock(f"Protocol: benchmarks/paper/protocol.yaml, SHA-256 {file.sha256}. {frozen}")
    for sentence in analysis.scores.deviations:
        yield missing_note(sentence)
    yield TextBlock(
        f"Base {models['base']}, encoder {models['encoder']}. {size.own_rows} own rows of each language after thinning, with "
        f"{size.thinning.keep:.0%} of the rows of thinned subjects kept. Items: up to {size.thinned_items_per_family} of thinned "
        f"subjects in each of {len(protocol.families)} families. Families, then seeds, then languages weigh alike."
    )
    if "bits_per_byte" in protocol.measures:
        yield TextBlock(
            "Bits per byte here is the mean over items of the bits of a gold reply for each of its bytes, because intervals over "
            "items need one value for each item. Tables of a run divide all bits of a family by all its bytes, so they differ."
        )
    equal = "equal for all, as train.tokens says" if cost.is_equal else f"NOT equal{_describe_inequality(analysis)}"
    yield TextBlock(
        f"Cost: {cost.adapters} adapters, trained tokens {_join(cost.tokens)}, optimizer steps {_join(cost.steps)}, {equal}.",
        tone="plain" if cost.is_equal else "missing",
    )
    measures = [(name, str(each.kind), str(each.better), each.meaning) for name, each in protocol.measures.items()]
    yield TableBlock("Measures", ("measure", "kind", "better", "meaning"), measures, numbers=4, folded=True)
    methods = {name: protocol.method_of(analysis.scores.attempt, name) for name in protocol.methods}
    rows = [(name, str(each.method), json.dumps({**each.select, **each.train})) for name, each in methods.items()]
    yield TableBlock("Methods", ("method", "select.methods", "settings"), rows, numbers=3, folded=True)
    for code, reason in analysis.at_chance.items():
        left_out = "is left out of means, intervals and tests; its own differences are shown in the tables by language"
        found = left_out if code in analysis.excluded else "would be left out, but no language remains"
        yield missing_note(f"{code} {found}: {reason}.")


def _describe_inequality(analysis: Analysis) -> str:
    cost = analysis.cost
    unknown = f", not recorded for {', '.join(cost.unknown)}" if cost.unknown else ""
    return f" to train.tokens {_join(cost.wanted)} with one number of steps{unknown}: differences below are not at equal cost"


def _claims(analysis: Analysis) -> Iterator[Block]:
    protocol, level = analysis.scores.protocol, f"{100 * analysis.chance:.2f}"
    chance = ("chance", *("–" if name in ("bits_per_byte", "brier") else level for name in protocol.measures))
    yield TableBlock(
        "Means on subjects that were thinned. Chance is the level of a uniform choice; bits per byte and Brier have none here",
        ("method", *(NAMES[name] for name in protocol.measures)),
        [
            *((method, *(_mean(analysis, method, name) for name in protocol.measures)) for method in analysis.scores.methods),
            chance,
        ],
    )
    for measure in protocol.primary:
        rows = [
            (
                f"{claim.method} less {claim.against}",
                *_numbers(claim.contrasts[measure]),
                f"{claim.corrected[measure]:.4f}",
                format_share(claim.contrasts[measure].share),
                claim.verdict(protocol.claims.level),
            )
            for claim in analysis.claims
        ]
        yield TableBlock(
            f"Claims in {NAMES[measure]}; positive is better. The p-value is corrected over all claims (Holm)",
            (*_HEADER, "corrected p", "share of oracle's gain", "verdict of both measures"),
            rows,
        )
    for measure in protocol.measures:
        rows = [
            (f"{each.a} less {each.b}", *_numbers(each), f"{each.p_value:.4f}", format_share(each.share))
            for each in analysis.contrasts
            if each.measure == measure
        ]
        header = (*_HEADER, "p, not corrected", "share of oracle's gain")
        yield TableBlock(f"All contrasts in {NAMES[measure]}; positive is better", header, rows, folded=True)


_HEADER = ("contrast", "difference", "95% interval", "95% bootstrap", "better in")


def _numbers(each: Contrast) -> tuple[str, ...]:
    return (
        format_value(each.mean, each.measure),
        format_interval(each.interval, each.measure),
        format_interval(each.bootstrap, each.measure),
        f"{each.wins.above} of {len(each.counted)}",
    )


def _mean(analysis: Analysis, method: str, measure: str) -> str:
    value = analysis.means.get((method, measure))
    return "–" if value is None else format_value(value, measure, sign=False)


def _languages(analysis: Analysis) -> Iterator[Block]:
    for measure in analysis.scores.protocol.primary:
        shown = [each for each in analysis.contrasts if each.measure == measure and each.b in ("target", "random")]
        codes = list(analysis.scores.languages)
        rows = [(f"{each.a} less {each.b}", *(_of_language(each, code) for code in codes)) for each in shown]
        if rows:
            text = f"Gains in {NAMES[measure]} over target and random."
            yield PlotsBlock([plot_image(f"{measure}.svg", plot_contrasts(shown, measure), text)])
            header = ("contrast", *(f"{code} (left out)" if code in analysis.excluded else code for code in codes))
            yield TableBlock(f"By language, {NAMES[measure]}, with intervals over items", header, rows, folded=True)
        families = [each for each in analysis.families if each.measure == measure]
        rows = [
            (f"{each.a} less {each.b}, {each.group.family}", *_numbers(each), f"{each.p_value:.4f}", format_share(each.share))
            for each in families
        ]
        names = (*_HEADER, "p, not corrected", "share of oracle's gain")
        yield TableBlock(f"By family, {NAMES[measure]}", names, rows)


def _of_language(each: Contrast, code: str) -> str:
    found = each.by_language.get(code)
    return "–" if found is None else f"{format_value(found.mean, each.measure)} {format_interval(found, each.measure)}"


@with_style
def plot_contrasts(contrasts: Sequence[Contrast], measure: str) -> Figure:
    """Gains over target and random: mean with its interval, and each language as a small mark, faint if it is left out."""
    shown = [each for each in contrasts if each.a in _PLOTTED]
    figure, axes = new_figure(6.8, 0.5 + 0.32 * max(len(shown), 1))
    scale = 100.0 if measure != "bits_per_byte" else 1.0
    for row, each in enumerate(reversed(shown)):
        style = METHOD_STYLES.get(each.a.partition("_")[0], OTHER_STYLE)
        for code, interval in each.by_language.items():
            alpha = 0.6 if code in each.counted else 0.2
            axes.plot([scale * interval.mean], [row], "|", color=style.colour, markersize=8, alpha=alpha)
        if each.interval:
            axes.plot([scale * each.interval.low, scale * each.interval.high], [row, row], "-", color=style.colour)
        axes.plot([scale * each.mean], [row], style.marker, color=style.colour)
    axes.axvline(0.0, color="#1b1f24", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [f"{each.a} less {each.b}" for each in reversed(shown)])
    axes.set_xlabel(f"gain in {NAMES[measure]}{' (points)' if scale > 1 else ''}; lines are languages, bars 95% intervals")
    return figure


def _controls(analysis: Analysis) -> Iterator[Block]:
    yield TextBlock(
        "Oracle selects by true subjects: the ceiling of any selector. Placebo has COMPASS's quotas on the wrong clusters. If "
        "placebo equals COMPASS, the clusters carry nothing. If oracle equals random, added rows do not help at this size."
    )
    wanted = {"oracle", "placebo"}
    rows = [
        (f"{each.a} less {each.b}, {NAMES[each.measure]}", *_numbers(each), f"{each.p_value:.4f}")
        for each in analysis.contrasts
        if each.measure in analysis.scores.protocol.primary and wanted & {each.a, each.b}
    ]
    yield TableBlock("Placebo and oracle", (*_HEADER, "p, not corrected"), rows)
    rows = [(f"{each.a} less {each.b}", *_numbers(each), f"{each.p_value:.4f}") for each in analysis.texts]
    yield TableBlock("Plain text (NTREX), bits per byte; positive is better", (*_HEADER, "p, not corrected"), rows)
    for harm in analysis.harms:
        yield TextBlock(describe_harm(harm))
    rows = [
        (
            f"{each.a} less {each.b}, {NAMES[each.measure]}, {'present' if each.group.elsewhere else 'not present'}",
            *_numbers(each),
            f"{each.p_value:.4f}",
        )
        for each in analysis.elsewhere
    ]
    yield TableBlock(
        "Items whose fact is present in the pool in another language, and others", (*_HEADER, "p"), rows, folded=True
    )
    yield TableBlock(
        "Divergence of own and added rows from the guide prompts over true subjects, in bits; mean of languages and seeds",
        ("method", "before", "after", "of the way to the oracle", "rows added"),
        list(_targeting(analysis)),
    )


def _targeting(analysis: Analysis) -> Iterator[tuple[str, ...]]:
    found = {
        method: [each for cell, each in analysis.scores.footers.items() if cell.method == method and "js_after" in each]
        for method in analysis.scores.methods
    }
    means = {
        method: {name: float(np.mean([each[name] for each in own])) for name in ("js_before", "js_after", "added_rows")}
        for method, own in found.items()
        if own
    }
    floor = means.get("oracle", {}).get("js_after")
    for method, each in means.items():
        possible = 0.0 if floor is None else each["js_before"] - floor
        way = (each["js_before"] - each["js_after"]) / possible if possible else None
        share = "–" if way is None else f"{way:.0%}"
        yield (method, f"{each['js_before']:.3f}", f"{each['js_after']:.3f}", share, f"{each['added_rows']:.0f}")


def _power(analysis: Analysis) -> Iterator[Block]:
    counted, level = len(analysis.scores.languages) - len(analysis.excluded), analysis.scores.protocol.claims.level
    able = "claims can pass" if analysis.least_p <= level else "no claim can pass, however large the differences are"
    yield TextBlock(
        f"The least corrected p-value of a claim in {counted} languages is {analysis.least_p:.3g}: at the level {level:g} {able}."
    )
    languages = len(analysis.scores.protocol.languages.evaluation)
    rows = [
        (f"{a} less {b}, {NAMES[measure]}", *(format_value(value, measure, sign=False) for value in values))
        for (a, b, measure), values in analysis.detectable.items()
    ]
    yield TableBlock(
        f"Least difference that {languages} languages detect with 80% power, from the deviation between languages measured here",
        ("contrast", "at the level", "corrected for all claims"),
        rows,
    )
    if analysis.noise:
        rows = [(NAMES[name], f"{value:.1f}") for name, value in analysis.noise.items()]
        yield TableBlock("Signal-to-noise: range of methods over the deviation of seeds", ("measure", "ratio"), rows)
    else:
        yield missing_note("Signal-to-noise needs two seeds of two methods in every language.")


_TARGETING_BEFORE = (
    "Divergences over true subjects were measured three times in the twelve evaluation languages before the protocol was frozen: "
    "with two earlier choices of clusters and with the present one. Nothing was trained or scored there. The choice was made on "
    "the development languages, but these languages were not wholly unseen (benchmarks/README.md)."
)


def _limits(analysis: Analysis) -> Iterator[Block]:
    protocol, attempt = analysis.scores.protocol, analysis.scores.attempt
    models = protocol.models_of(attempt)
    yield TextBlock(
        f"One base model of this size ({models['base']}), one kit of short public items, and simulated thinning. Nothing "
        f"is shown about larger models, long replies, free generation, or gaps that arise in use. The prompts are simpler "
        f"than those that people write. Facts of the test items may stand in the pool in other languages. Settings were "
        f"chosen on the development languages. The interval is for languages and items like these; a difference inside it "
        f"is neither shown nor excluded. Training tokens and steps are equal, but the time of selection is not counted."
    )
    if "all" in protocol.methods:
        tokens = _join([int(protocol.settings_of(attempt, "all")["train"]["tokens"])])
        yield TextBlock(f"The method all sees {tokens} tokens of the pool, as every method does, and so not the whole pool.")
    if is_evaluation(attempt):
        yield TextBlock(_TARGETING_BEFORE)


def _records(file: ProtocolFile, store: MeasurementStore, analysis: Analysis) -> Iterator[Block]:
    yield TextBlock(
        f"All numbers of this page are in {RECORD} beside it. The command python -m benchmarks.paper.recompute --try "
        f"{analysis.scores.attempt} makes the main table again from the files below, without this package. It leaves out "
        f"languages by the same rule. Each file has the hash of the protocol and its settings in its footer."
    )
    rows = [
        (
            _link(cell.path(store.folder).relative_to(store.folder / cell.attempt)),
            str(footer.get("tokens") or "–"),
            str(footer.get("steps") or "–"),
            str(footer.get("own_rows") or "–"),
            str(footer.get("added_rows") if footer.get("added_rows") is not None else "–"),
            str(footer.get("protocol", ""))[:12],
        )
        for cell, footer in analysis.scores.footers.items()
    ]
    header = ("file", "trained tokens", "steps", "own rows", "added rows", "protocol")
    yield TableBlock("Measurements", header, rows, folded=True)


def _link(path: Path) -> str:
    return Markup('<a href="{0}">{0}</a>').format(path.as_posix())


def _join(values: Sequence[int]) -> str:
    return ", ".join(f"{value:,}" for value in values) or "not recorded"


def _terminal_table(analysis: Analysis) -> Iterator[str]:
    """Contrasts in the primary measures, for a terminal."""
    for each in analysis.contrasts:
        if each.measure in analysis.scores.protocol.primary and each.b != ZERO_SHOT:
            yield (
                f"{each.measure:14} {each.a + ' - ' + each.b:32} {format_value(each.mean, each.measure):>8} "
                f"{format_interval(each.interval, each.measure):>20} p {each.p_value:.3f} "
                + " ".join(f"{code} {format_value(of.mean, each.measure)}" for code, of in each.by_language.items())
            )
    yield from analysis.scores.deviations
    cost = analysis.cost
    yield f"tokens {_join(cost.tokens)}; steps {_join(cost.steps)}; {'equal' if cost.is_equal else 'NOT EQUAL'}"
