"""Plots of a run. Each function takes records and returns one matplotlib figure, readable at 390 CSS pixels.

Key property: the page also shows the plotted numbers as text or as a table. Plots of several languages have common axes.
Nothing is read or written here. COMPASS, section 5 has similar plots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from compass_ray.records.allocation import AllocationRecord
from compass_ray.records.clustering import SweepRecord
from compass_ray.records.decisions import DecisionRecord
from compass_ray.records.training import HistoryRecord
from compass_ray.report.cluster_description import cluster_names
from compass_ray.report.comparison import MEAN, ComparisonRow
from compass_ray.report.drift_summary import LanguageTimeline, decision_name
from compass_ray.report.run_reader import METHODS, is_version, language_name, method_name
from compass_ray.report.style import (
    GUIDE,
    METHOD_STYLES,
    MUTED,
    RULE,
    UPDATED_STYLE,
    MethodStyle,
    add_legend_below,
    new_figure,
    set_wide_title,
    with_style,
)
from compass_ray.translations import translate as _

MOST_CLUSTERS = 12
MOST_SOURCES = 20
_WIDTH = 3.9
"""Width of a plot in inches: 374 CSS pixels."""
_DECISION_LINE_STYLES = {"drift": ":", "stale": "-.", "promotion": "-", "rollback": "--"}
"""Line styles of the decisions in a divergence plot."""


def furthest_clusters(allocation: AllocationRecord, most: int = MOST_CLUSTERS) -> list[int]:
    """Indices into ``allocation.clusters`` of the clusters with the largest gap to the guide set, the least covered first."""
    guide, before, after = (shares[: len(allocation.clusters)] for shares in _shares(allocation))
    width = np.maximum(np.abs(guide - before), np.abs(guide - after))
    widest = np.argsort(-width, kind="stable")[:most]
    return [int(index) for index in widest[np.argsort((before - guide)[widest], kind="stable")]]


@with_style
def plot_gap(allocation: AllocationRecord, sweep: SweepRecord | None, widest: float | None = None) -> Figure:
    """Shares of the clusters with the largest gaps: in the guide set, and in the training rows before and after selection.

    ``widest`` is the end of the axis, the largest share in any language; by default the largest one of this language.
    """
    indices, names = furthest_clusters(allocation), cluster_names(allocation, sweep)
    figure, axes = new_figure(_WIDTH, 1.5 + 0.29 * max(len(indices), 3))
    _gap_points(axes, *(shares[indices] for shares in _shares(allocation)))
    axes.set_yticks(range(len(indices)), [names[i] for i in indices])
    axes.set_ylim(len(indices) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(5, min_n_ticks=3))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlim(0, (widest_share(allocation) if widest is None else widest) * 1.05)
    axes.set_xlabel(_("share of rows"))
    axes.set_title(language_name(allocation.language))
    add_legend_below(figure, axes, 3)
    return figure


def widest_share(allocation: AllocationRecord) -> float:
    """The largest share that `plot_gap` shows for a language, at least 0.01."""
    indices = furthest_clusters(allocation)
    return max([float(shares[indices].max(initial=0.0)) for shares in _shares(allocation)] + [0.01])


def _shares(allocation: AllocationRecord) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return allocation.gap.p_eval, allocation.gap.p_before, allocation.gap.p_after


def _gap_points(axes: Axes, guide: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
    rows, colour = np.arange(len(guide)), METHOD_STYLES["compass"].colour
    axes.hlines(rows, before, after, color=colour, linewidth=2.2, alpha=0.35)
    hollow = axes.scatter(before, rows, s=42, facecolor="white", edgecolor=MUTED, linewidth=1.6, zorder=3)
    filled = axes.scatter(after, rows, s=42, color=colour, zorder=4)
    bar = axes.scatter(guide, rows, s=150, marker="|", color=GUIDE, linewidth=2.4, zorder=5)
    labels = (_("rows before"), _("with selected rows"), _("guide prompts"))
    for points, label in zip((hollow, filled, bar), labels, strict=True):
        points.set(label=label, clip_on=False)


def source_matrix(counts: Mapping[str, Mapping[str, int]]) -> tuple[list[str], np.ndarray]:
    """Source languages, the most used first, and their row counts: int64[targets, sources]. The rest are combined as ``""``."""
    totals: dict[str, int] = {}
    for row in counts.values():
        for code, number in row.items():
            totals[code] = totals.get(code, 0) + number
    ranked = sorted(totals, key=lambda code: (-totals[code], code))
    shown, rest = ranked[:MOST_SOURCES], ranked[MOST_SOURCES:]
    matrix = [[row.get(code, 0) for code in shown] + [sum(row.get(code, 0) for code in rest)] for row in counts.values()]
    numbers = np.array(matrix, dtype=np.int64).reshape(len(counts), len(shown) + 1)
    return ([*shown, ""], numbers) if rest else (shown, numbers[:, :-1])


@with_style
def plot_divergences(
    before: Mapping[str, float],
    after: Mapping[str, Mapping[str, float]],
    styles: Mapping[str, MethodStyle],
    title: str,
) -> Figure:
    """Divergence from the guide set by language, the largest first: ``before``, and ``after`` by method and language."""
    codes = sorted(before, key=lambda code: (-before[code], code))
    figure, axes = new_figure(4.6, 1.6 + 0.24 * max(len(codes), 3))
    rows = range(len(codes))
    bars = axes.scatter([before[c] for c in codes], rows, s=110, marker="|", color=GUIDE, linewidth=2.2, zorder=3)
    bars.set_label(_("rows before"))
    for method, found in after.items():
        style = styles[method]
        points = [(found[code], row) for row, code in zip(rows, codes, strict=True) if code in found]
        drawn = axes.scatter(*_split_xy(points), s=26, marker=style.marker, color=style.colour, alpha=0.9, zorder=4)
        drawn.set(label=method_name(method), clip_on=False)
    axes.set_yticks(rows, [language_name(code) for code in codes])
    axes.set_ylim(len(codes) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel(_("divergence from the guide set, bits"))
    set_wide_title(figure, title)
    add_legend_below(figure, axes, 5)
    return figure


@with_style
def plot_accuracy(
    rows: Sequence[ComparisonRow], confidence: float, title: str, limits: tuple[float, float] | None = None
) -> Figure:
    """Accuracy of every method in every language, with intervals, and of the mean over languages; and the chance level.

    ``limits`` are the ends of the axis; see `accuracy_range`.
    """
    methods = [method for method in METHODS if any(method in row.accuracy for row in rows)]
    figure, axes = new_figure(_WIDTH, 1.4 + max(0.52, 0.11 * len(methods)) * len(rows))
    spacing = min(0.17, 0.8 / max(len(methods), 1))
    for index, method in enumerate(methods):
        offset = spacing * (index - (len(methods) - 1) / 2)
        _method_points(axes, rows, method, offset)
    known = [(index, row.chance) for index, row in enumerate(rows) if row.chance is not None]
    lows, highs = ([index + side for index, _ in known] for side in (-0.45, 0.45))
    axes.vlines([chance for _, chance in known], lows, highs, color=MUTED, linestyle=":", linewidth=1.2, label=_("chance"))
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    if rows and rows[-1].language == MEAN and len(rows) > 1:
        axes.axhline(len(rows) - 1.5, color=RULE, linewidth=1.2)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel(_("accuracy, with its {confidence} interval", confidence=f"{confidence:.0%}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, min_n_ticks=3))
    if limits:
        axes.set_xlim(*limits)
    set_wide_title(figure, title)
    add_legend_below(figure, axes, 5)
    return figure


def accuracy_range(rows: Sequence[ComparisonRow]) -> tuple[float, float] | None:
    """A common axis of `plot_accuracy` for all scopes: from the lowest to the highest interval or chance; None without rows."""
    known = [value for row in rows for each in row.accuracy.values() for value in (each.low, each.high)]
    known += [row.chance for row in rows if row.chance is not None]
    return (max(min(known) - 0.02, 0.0), min(max(known) + 0.02, 1.0)) if known else None


def _method_points(axes: Axes, rows: Sequence[ComparisonRow], method: str, offset: float) -> None:
    style = METHOD_STYLES[method]
    shown = [(index + offset, row.accuracy[method]) for index, row in enumerate(rows) if method in row.accuracy]
    heights = [y for y, _ in shown]
    axes.hlines(
        heights,
        [i.low for _, i in shown],
        [i.high for _, i in shown],
        color=style.colour,
        linewidth=1.6,
        alpha=0.75,
    )
    axes.scatter(
        [i.mean for _, i in shown],
        heights,
        s=30,
        marker=style.marker,
        color=style.colour,
        label=method_name(method),
        zorder=3,
    )


@with_style
def plot_training(
    language: str, histories: Mapping[str, HistoryRecord], served: str, limits: tuple[float, float] | None = None
) -> Figure:
    """Loss by epoch of every adapter of a language: validation solid, training dotted, selected epoch ringed.

    ``limits`` are the ends of the axis; see `loss_range`.
    """
    figure, axes = new_figure(_WIDTH, 3.2)
    for version, history in histories.items():
        _plot_losses(axes, adapter_name(version, served), adapter_style(version, served), history)
    last = max((epoch.epoch for history in histories.values() for epoch in history.epochs), default=1)
    axes.set_xlim(0.7, last + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if limits:
        axes.set_ylim(*limits)
    axes.set_xlabel(_("epoch"))
    axes.set_ylabel(_("loss, nats per token"))
    axes.set_title(language_name(language))
    axes.plot([], [], color=MUTED, linestyle=":", label=_("dotted: training loss"))
    add_legend_below(figure, axes, 3)
    return figure


def loss_range(histories: Mapping[str, Mapping[str, HistoryRecord]]) -> tuple[float, float] | None:
    """A common axis of `plot_training` for all languages, from the lowest to the highest loss; None without losses."""
    epochs = [epoch for by in histories.values() for history in by.values() for epoch in history.epochs]
    known = [loss for epoch in epochs for loss in (epoch.train_loss, epoch.validation_loss) if loss is not None]
    if not known:
        return None
    margin = 0.05 * (max(known) - min(known)) or 0.05
    return min(known) - margin, max(known) + margin


def adapter_name(version: str, served: str) -> str:
    """Display name of an adapter version, with its method."""
    return f"{version} {method_name(served)}" if is_version(version) else method_name(version)


def adapter_style(version: str, served: str) -> MethodStyle:
    """Plot style of an adapter's method. Versions after the first have their own style."""
    if is_version(version):
        return METHOD_STYLES[served] if int(version[1:]) <= 1 else UPDATED_STYLE
    return METHOD_STYLES.get(version, METHOD_STYLES["zero_shot"])


def _plot_losses(axes: Axes, name: str, style: MethodStyle, history: HistoryRecord) -> None:
    train = [(e.epoch, e.train_loss) for e in history.epochs if e.train_loss is not None]
    held = [(e.epoch, e.validation_loss) for e in history.epochs if e.validation_loss is not None]
    axes.plot(*_split_xy(train), color=style.colour, linestyle=":", marker=".", markersize=4, linewidth=1.3)
    axes.plot(*_split_xy(held), color=style.colour, marker=style.marker, markersize=4, label=name)
    best = [point for point in held if point[0] == history.best_epoch]
    axes.scatter(*_split_xy(best), s=110, facecolor="none", edgecolor=style.colour, linewidth=1.2, zorder=4)


def _split_xy(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


@with_style
def plot_divergence(timeline: LanguageTimeline, widest: float | None = None) -> Figure:
    """Divergence of a language's window by prompts seen, with the threshold and the decisions.

    ``widest`` is the largest value in any language, for a common axis; by default that of this language.
    """
    figure, axes = new_figure(_WIDTH, 3.1)
    prompts = [check.prompts for check in timeline.checks]
    style = METHOD_STYLES["compass"]
    axes.plot(
        prompts,
        [c.divergence for c in timeline.checks],
        color=style.colour,
        marker="o",
        markersize=3.5,
        label=_("divergence"),
    )
    thresholds = [check.threshold for check in timeline.checks]
    axes.step(prompts, thresholds, where="post", color=METHOD_STYLES["target"].colour, linestyle="--", label=_("threshold"))
    axes.set_ylim(0, 1.32 * (widest or widest_divergence([timeline])))
    for decision in timeline.decisions:
        _plot_decision(axes, decision, timeline.prompts_seen_at(decision))
    axes.set_xlabel(_("prompts seen"))
    axes.set_ylabel(_("divergence, bits"))
    axes.set_title(language_name(timeline.language))
    add_legend_below(figure, axes, 2)
    return figure


def widest_divergence(timelines: Sequence[LanguageTimeline]) -> float:
    """The largest divergence or threshold of some languages in bits; 1 if there is none."""
    checks = [check for timeline in timelines for check in timeline.checks]
    return max([value for check in checks for value in (check.divergence, check.threshold)], default=1.0) or 1.0


def _plot_decision(axes: Axes, decision: DecisionRecord, prompts: int | None) -> None:
    if prompts is None or decision.kind not in _DECISION_LINE_STYLES:
        return
    axes.axvline(prompts, color=UPDATED_STYLE.colour, linestyle=_DECISION_LINE_STYLES[decision.kind], linewidth=1.3)
    version = f" {decision.to_version}" if decision.to_version and decision.kind != "drift" else ""
    top = 0.98 if decision.kind == "drift" else 0.90
    axes.text(
        prompts,
        top,
        f" {decision_name(decision.kind)}{version}",
        transform=axes.get_xaxis_transform(),
        va="top",
        color=UPDATED_STYLE.colour,
        size=8.5,
    )
