"""Plots of an experiment: accuracy and remaining gap of every method in every variant.

The page shows the same numbers as tables. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from compass_ray.core.bootstrap import Interval
from compass_ray.evaluation.experiments.results import VariantOutcome
from compass_ray.report.comparison import Scope
from compass_ray.report.run_reader import METHODS
from compass_ray.report.style import (
    GUIDE,
    METHOD_STYLES,
    MUTED,
    OTHER_STYLE,
    add_legend_below,
    new_figure,
    printable_label,
    with_style,
)

_MAX_LABEL_LENGTH = 44


@with_style
def plot_accuracy(outcomes: Sequence[VariantOutcome], scope: Scope, confidence: float, title: str) -> Figure:
    """Plot the accuracy of every method in every variant, with intervals, and the chance level."""
    methods = [m for m in METHODS if any(m in o.accuracy.get(scope, {}) for o in outcomes)]
    figure, axes = new_figure(6.4, 1.4 + max(0.46, 0.11 * len(methods)) * len(outcomes))
    spacing = min(0.17, 0.8 / max(len(methods), 1))
    for index, method in enumerate(methods):
        found = {row: o.accuracy.get(scope, {}).get(method) for row, o in enumerate(outcomes)}
        shown = {row + spacing * (index - (len(methods) - 1) / 2): interval for row, interval in found.items() if interval}
        _plot_intervals(axes, shown, method)
    known = [(row, chance) for row, o in enumerate(outcomes) if (chance := o.chance.get(scope)) is not None]
    lows, highs = ([row + side for row, _ in known] for side in (-0.45, 0.45))
    axes.vlines([chance for _, chance in known], lows, highs, color=MUTED, linestyle=":", linewidth=1.2, label="chance")
    _label_rows(axes, outcomes)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel(f"accuracy with {confidence:.0%} interval")
    axes.set_title(title)
    add_legend_below(figure, axes, 4)
    return figure


def _plot_intervals(axes: Axes, shown: Mapping[float, Interval], method: str) -> None:
    style, heights, intervals = METHOD_STYLES.get(method, OTHER_STYLE), list(shown), list(shown.values())
    axes.hlines(heights, [i.low for i in intervals], [i.high for i in intervals], color=style.colour, linewidth=1.6, alpha=0.75)
    means = [i.mean for i in intervals]
    axes.scatter(means, heights, s=30, marker=style.marker, color=style.colour, label=METHODS[method], zorder=3)


@with_style
def plot_gaps(outcomes: Sequence[VariantOutcome], title: str) -> Figure:
    """Plot the divergence from the guide set of every method in every variant, and before selection."""
    methods = [m for m in METHODS if m not in ("target", "own_repeated") and any(m in o.gap for o in outcomes)]
    figure, axes = new_figure(6.4, 1.5 + 0.3 * len(outcomes))
    before = [(row, left.before) for row, o in enumerate(outcomes) for left in list(o.gap.values())[:1]]
    axes.scatter(
        [x for _, x in before],
        [row for row, _ in before],
        s=110,
        marker="|",
        color=GUIDE,
        linewidth=2.2,
        label="before",
    )
    for method in methods:
        style = METHOD_STYLES.get(method, OTHER_STYLE)
        after = [(row, o.gap[method].after) for row, o in enumerate(outcomes) if method in o.gap]
        points = axes.scatter([x for _, x in after], [row for row, _ in after], s=30, marker=style.marker, color=style.colour)
        points.set(label=METHODS[method], clip_on=False, zorder=4)
    _label_rows(axes, outcomes)
    axes.set_xlim(left=0)
    axes.set_xlabel("divergence from the guide set, bits, mean over languages")
    axes.set_title(title)
    add_legend_below(figure, axes, 4)
    return figure


def _label_rows(axes: Axes, outcomes: Sequence[VariantOutcome]) -> None:
    axes.set_yticks(range(len(outcomes)), [printable_label(o.name, o.name, _MAX_LABEL_LENGTH) for o in outcomes])
    axes.set_ylim(len(outcomes) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
