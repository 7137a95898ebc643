"""Plots of a drift simulation: divergence along one stream, and delay by threshold.

The table and the record have the same numbers. Nothing is read or written here. COMPASS, appendix D.2.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compass_ray.evaluation.simulation.drift.results import DetectionResult, DetectionRow
from compass_ray.languages import get_language
from compass_ray.report.style import (
    GUIDE,
    METHOD_STYLES,
    MUTED,
    UPDATED_STYLE,
    MethodStyle,
    add_legend_below,
    new_figure,
    with_style,
)

_STYLES = (MethodStyle("#0062a8", "o"), MethodStyle("#c2500a", "^"), MethodStyle("#00876c", "D"))
"""Styles of the configured trigger, of the paper's thresholds, and of thresholds with the rules of the configured trigger."""


@with_style
def plot_divergence(found: DetectionResult, period: int) -> Figure:
    """Plot divergence, changes and alarms of the first stream with the configured trigger."""
    shown, style = found.examples[0], METHOD_STYLES["compass"]
    figure, axes = new_figure(7.4, 3.3)
    prompts = [check.prompts for check in shown.checks]
    values = [check.decision.divergence for check in shown.checks]
    axes.plot(prompts, values, color=style.colour, marker=style.marker, markersize=2.6, linewidth=1.2, label="divergence")
    axes.axhline(
        shown.threshold, color=METHOD_STYLES["target"].colour, linestyle="--", label=f"{shown.trigger}: {shown.threshold:g} bits"
    )
    _draw_changes(axes, found, period)
    alarms = [check for check in shown.checks if check.alarm]
    at = [check.prompts for check in alarms]
    axes.scatter(
        at, [a.decision.divergence for a in alarms], s=90, marker="v", color=UPDATED_STYLE.colour, label="alarm", zorder=4
    )
    axes.set_ylim(0, 1.2 * max([*values, shown.threshold]))
    axes.set_xlabel("prompts")
    axes.set_ylabel("divergence, bits")
    axes.set_title(f"{get_language(found.language).name}: one stream, reference reset after every alarm")
    add_legend_below(figure, axes, 4)
    return figure


def _draw_changes(axes: Axes, found: DetectionResult, period: int) -> None:
    for index, each in enumerate(found.periods):
        if index:
            axes.axvline(index * period, color=MUTED, linestyle=":", linewidth=1.3, label="change" if index == 1 else None)
        axes.text(index * period, 0.97, f" {each.name}", transform=axes.get_xaxis_transform(), va="top", color=GUIDE, size=8.5)


@with_style
def plot_delay(found: DetectionResult) -> Figure:
    """Plot mean delay (top), and missed changes and false alarms (bottom), of every trigger by threshold."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for style, name in zip(_STYLES, dict.fromkeys(row.trigger for row in found.rows), strict=False):
        rows = [row for row in found.rows if row.trigger == name]
        _draw_delays(above, rows, style, name)
        _draw_errors(below, rows, style)
    above.set_ylim(bottom=0)
    above.set_ylabel("delay, prompts")
    above.set_title(f"{get_language(found.language).name}: delay and errors over {found.rows[0].summary.runs} streams")
    below.set_ylim(bottom=0)
    below.set_ylabel("missed (hollow)\nfalse (filled)")
    below.set_xlabel("threshold, or minimum divergence of a test, bits")
    add_legend_below(figure, above, 3)
    return figure


def _draw_delays(axes: Axes, rows: list[DetectionRow], style: MethodStyle, name: str) -> None:
    points = [(row.threshold, row.summary.mean_delay) for row in rows if row.summary.mean_delay is not None]
    thresholds, delays = [x for x, _ in points], [y for _, y in points]
    axes.plot(thresholds, delays, color=style.colour, marker=style.marker, markersize=5, linewidth=1.4, label=name)
    if len(points) == 1:
        axes.axhline(delays[0], color=style.colour, linewidth=1.0, alpha=0.6)


def _draw_errors(axes: Axes, rows: list[DetectionRow], style: MethodStyle) -> None:
    at = [row.threshold for row in rows]
    missed, false = [row.summary.missed for row in rows], [row.summary.false_alarms for row in rows]
    axes.plot(at, missed, color=style.colour, marker=style.marker, markersize=7, markerfacecolor="white", linestyle=":")
    axes.plot(at, false, color=style.colour, marker=style.marker, markersize=4, linewidth=1.2)
