"""Section "Where was the gap?": guide set and training rows by cluster, before and after selection."""

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
from compass_ray.report.cluster_description import cluster_names
from compass_ray.report.comparison import format_percent
from compass_ray.report.explain_text import describe_quota, shorten_turns
from compass_ray.report.plots import furthest_clusters, plot_gap, widest_share
from compass_ray.report.run_reader import RunReader, language_name
from compass_ray.report.sections import budgets, methods_gap
from compass_ray.report.warnings import find_warnings
from compass_ray.translations import translate as _

_MAX_CARDS = 8
_MAX_CARDS_PER_LANGUAGE = 3


def section(reader: RunReader, languages: tuple[str, ...]) -> ReportSection:
    """Divergence before and after selection, one plot per language, and the clusters with the largest gaps."""
    allocations = {
        code: allocation for code in languages if (allocation := reader.allocation("compass", code)) and allocation.n_guide
    }
    if not allocations:
        return ReportSection("gap", _("Where was the gap?"), [missing_note(_("This run has no COMPASS selection yet."))])
    blocks: list[Block] = [
        TextBlock(
            _(
                "A gap is a cluster with a larger share of the guide prompts than of the training rows. The divergence between "
                "the two distributions over all clusters and noise is 0 bits if they are equal, and 1 bit if they do not overlap."
            )
        ),
        *(TextBlock(_("Caution: {warning}.", warning=warning), tone="caution") for warning in find_warnings(reader, languages)),
        _divergences(allocations),
        *budgets.blocks(reader, languages),
        *methods_gap.blocks(reader, languages),
        *_pictures(reader, allocations),
        *_cards(reader, allocations),
        *(
            missing_note(_("{language} has no COMPASS selection with guide prompts.", language=language_name(code)))
            for code in languages
            if code not in allocations
        ),
    ]
    return ReportSection("gap", _("Where was the gap?"), blocks)


def _divergences(allocations: Mapping[str, AllocationRecord]) -> TableBlock:
    rows = [
        (
            language_name(code),
            format_number(allocation.js_before, 3),
            format_number(allocation.js_after, 3),
            str(allocation.n_guide),
            str(allocation.noise.guide),
        )
        for code, allocation in allocations.items()
    ]
    header = (_("language"), _("before, bits"), _("after, bits"), _("guide prompts"), _("in noise"))
    return TableBlock(_("Divergence of the training rows from the guide set, before and after selection"), header, rows)


def _pictures(reader: RunReader, allocations: Mapping[str, AllocationRecord]) -> Iterator[Block]:
    if allocations:
        widest = max(map(widest_share, allocations.values()))
        yield PlotsBlock([_picture(reader, allocation, widest) for allocation in allocations.values()])


def _picture(reader: RunReader, allocation: AllocationRecord, widest: float) -> PlotImage:
    shares, indices = allocation.gap, furthest_clusters(allocation)
    names = cluster_names(allocation, reader.sweep(allocation.language))
    columns = (shares.p_eval, shares.p_before, shares.p_after)
    rows = [(names[index], *(format_percent(float(column[index])) for column in columns)) for index in indices]
    header = (_("cluster"), _("guide, %"), _("before, %"), _("after, %"))
    name = language_name(allocation.language)
    numbers = TableBlock(_("{language}: share of each cluster", language=name), header, rows, folded=True)
    alt = _(
        "{language}: shares of the {shown} clusters with the largest gaps, of {count}, in guide prompts and in "
        "training rows before and after selection. The table below the plot has the numbers.",
        language=name,
        shown=len(indices),
        count=len(names),
    )
    figure = plot_gap(allocation, reader.sweep(allocation.language), widest)
    return plot_image(f"gap-{allocation.language}.svg", figure, alt, numbers, allocation.language)


def _cards(reader: RunReader, allocations: Mapping[str, AllocationRecord]) -> Iterator[Block]:
    wanted: dict[tuple[str, int], str] = {}
    for code, allocation in allocations.items():
        for index in furthest_clusters(allocation, _MAX_CARDS_PER_LANGUAGE):
            wanted.setdefault((reader.clusters(code).name, allocation.clusters[index].cluster), code)
    cards = []
    for (name, number), code in wanted.items():
        sharing = {c: allocation for c, allocation in allocations.items() if reader.clusters(c).name == name}
        if cluster := reader.cluster(code, number):
            cards.append(_card(cluster, sharing, "" if len(sharing) == len(allocations) else code))
    if cards:
        yield CardsBlock(_("Clusters with the largest gaps"), cards[:_MAX_CARDS])


def _card(cluster: ClusterRecord, allocations: Mapping[str, AllocationRecord], owner: str) -> NoteCard:
    title = _("Cluster {number}", number=cluster.cluster)
    if owner:
        title = _("Cluster {number} of {language}", number=cluster.cluster, language=language_name(owner))
    if cluster.subject:
        title = _("{cluster}: mostly {subject}", cluster=title, subject=cluster.subject)
    most = sorted(cluster.languages.items(), key=lambda item: (-item[1], item[0]))[:5]
    lines = [
        _(
            "{count} pool rows, most in {languages}.",
            count=cluster.size,
            languages=", ".join(f"{language_name(c)} {n}" for c, n in most),
        )
    ]
    for code, allocation in allocations.items():
        quota = next((q for q in allocation.clusters if q.cluster == cluster.cluster), None)
        if quota and (quota.n_eval or quota.selected):
            lines.append(describe_quota(code, quota))
    quotes = [PromptQuote(shorten_turns(e.prompt), e.language, language_name(e.language)) for e in cluster.examples[:3]]
    return NoteCard(title, lines, quotes, owner)
