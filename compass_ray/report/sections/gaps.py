"""Where was the gap? Guide set against training rows, cluster by cluster, before and after selection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from compass_ray.records.allocation import AllocationRecord
from compass_ray.records.clustering import ClusterRecord
from compass_ray.report.blocks import (
    Block,
    CardsBlock,
    NoteCard,
    PlotImage,
    PlotsBlock,
    PromptQuote,
    ReportSection,
    TableBlock,
    TextBlock,
    format_number,
    missing_note,
    plot_image,
)
from compass_ray.report.comparison import format_percent
from compass_ray.report.explain_text import describe_quota
from compass_ray.report.plots import cluster_names, furthest_clusters, plot_gap
from compass_ray.report.run_reader import RunReader, language_name
from compass_ray.report.sections import budgets, methods_gap
from compass_ray.report.warnings import find_warnings

_MAX_CARDS = 8
_MAX_CARDS_PER_LANGUAGE = 3


def section(evidence: RunReader, languages: tuple[str, ...]) -> ReportSection:
    """Divergence before and after, one picture a language, and what the widest gaps hold."""
    found = {code: made for code in languages if (made := evidence.allocation("compass", code)) and made.n_guide}
    if not found:
        return ReportSection("gap", "Where was the gap?", [missing_note("No selection by COMPASS has been made yet.")])
    blocks: list[Block] = [
        TextBlock(
            "A gap is a cluster that the guide prompts ask for more than the training rows cover. The "
            "divergence "
            "between the two, over all clusters and noise, is 0 bits where they agree and 1 where they "
            "share nothing."
        ),
        *(TextBlock(f"Note: {caution}.") for caution in find_warnings(evidence, languages)),
        _divergences(found),
        *budgets.blocks(evidence, languages),
        *methods_gap.blocks(evidence, languages),
        *_pictures(evidence, found),
        *_cards(evidence, found),
        *(
            missing_note(f"{language_name(code)} has no selection by COMPASS with guide prompts.")
            for code in languages
            if code not in found
        ),
    ]
    return ReportSection("gap", "Where was the gap?", blocks)


def _divergences(found: Mapping[str, AllocationRecord]) -> TableBlock:
    rows = [
        (
            language_name(code),
            format_number(made.js_before, 3),
            format_number(made.js_after, 3),
            str(made.n_guide),
            str(made.noise.guide),
        )
        for code, made in found.items()
    ]
    header = ("language", "before, bits", "after, bits", "guide prompts", "of them noise")
    return TableBlock("Divergence of the training rows from the guide set, before and after selection", header, rows)


def _pictures(evidence: RunReader, found: Mapping[str, AllocationRecord]) -> Iterator[Block]:
    if found:
        yield PlotsBlock([_picture(evidence, made) for made in found.values()])


def _picture(evidence: RunReader, made: AllocationRecord) -> PlotImage:
    names, found, places = cluster_names(made, evidence.sweep(made.language)), made.gap, furthest_clusters(made)
    columns = (found.p_eval, found.p_before, found.p_after)
    rows = [(names[place], *(format_percent(float(column[place])) for column in columns)) for place in places]
    header = ("cluster", "guide, %", "before, %", "after, %")
    name = language_name(made.language)
    numbers = TableBlock(f"{name}: share of each cluster", header, rows, folded=True)
    alt = (
        f"{name}: share of the {len(places)} clusters furthest from the guide set, of {len(names)}, in "
        f"guide prompts, in "
        f"training rows before and with the selected rows. The numbers are in the table below the picture."
    )
    return plot_image(f"gap-{made.language}.png", plot_gap(made, evidence.sweep(made.language)), alt, numbers)


def _cards(evidence: RunReader, found: Mapping[str, AllocationRecord]) -> Iterator[Block]:
    wanted: dict[tuple[str, int], str] = {}
    for code, made in found.items():
        for place in furthest_clusters(made, _MAX_CARDS_PER_LANGUAGE):
            wanted.setdefault((evidence.clusters(code).name, made.clusters[place].cluster), code)
    cards = []
    for (name, number_), code in wanted.items():
        sharing = {c: made for c, made in found.items() if evidence.clusters(c).name == name}
        if cluster := evidence.cluster(code, number_):
            cards.append(_card(cluster, sharing, "" if len(sharing) == len(found) else f" of {language_name(code)}"))
    if cards:
        yield CardsBlock("What the clusters with the widest gaps hold", cards[:_MAX_CARDS])


def _card(cluster: ClusterRecord, found: Mapping[str, AllocationRecord], whose: str) -> NoteCard:
    title = f"Cluster {cluster.cluster}{whose}" + (f": mostly {cluster.subject}" if cluster.subject else "")
    most = sorted(cluster.languages.items(), key=lambda item: (-item[1], item[0]))[:5]
    lines = [f"{cluster.size} pool rows; most are in {', '.join(f'{language_name(c)} {n}' for c, n in most)}."]
    for code, made in found.items():
        quota = next((q for q in made.clusters if q.cluster == cluster.cluster), None)
        if quota and (quota.n_eval or quota.selected):
            lines.append(describe_quota(code, quota))
    return NoteCard(title, lines, [PromptQuote(e.prompt, e.language, language_name(e.language)) for e in cluster.examples[:3]])
