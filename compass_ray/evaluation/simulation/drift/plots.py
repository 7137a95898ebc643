"""The pictures of a simulation: divergence along one stream, and how late thresholds are.

Key property: they draw what the table and the record also say. Nothing is read or written here. COMPASS, appendix D.2.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compass_ray.evaluation.simulation.drift.results import DetectionResult, DetectionRow
from compass_ray.languages import get_language as known_language
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

_LOOKS = (MethodStyle("#0062a8", "o"), MethodStyle("#c2500a", "^"), MethodStyle("#00876c", "D"))
"""Of the configured trigger, of thresholds as printed, and of thresholds by the same rules as the configured one."""


@with_style
def plot_divergence(found: DetectionResult, period: int) -> Figure:
    """Divergence of the window at every check of the first stream under the configured trigger; changes and alarms."""
    shown, look = found.examples[0], METHOD_STYLES["compass"]
    figure, axes = new_figure(7.4, 3.3)
    prompts = [check.prompts for check in shown.checks]
    values = [check.decision.divergence for check in shown.checks]
    axes.plot(prompts, values, color=look.colour, marker=look.marker, markersize=2.6, linewidth=1.2, label="divergence")
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
    axes.set_xlabel("prompts seen")
    axes.set_ylabel("divergence, bits")
    axes.set_title(f"{known_language(found.language).name}: one stream, reference reset after every alarm")
    add_legend_below(figure, axes, 4)
    return figure


def _draw_changes(axes: Axes, found: DetectionResult, period: int) -> None:
    for place, each in enumerate(found.periods):
        if place:
            axes.axvline(place * period, color=MUTED, linestyle=":", linewidth=1.3, label="change" if place == 1 else None)
        axes.text(place * period, 0.97, f" {each.name}", transform=axes.get_xaxis_transform(), va="top", color=GUIDE, size=8.5)


@with_style
def plot_delay(found: DetectionResult) -> Figure:
    """Mean delay by threshold above, and what was missed or raised for nothing below, of every trigger."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for look, name in zip(_LOOKS, dict.fromkeys(line.trigger for line in found.rows), strict=False):
        lines = [line for line in found.rows if line.trigger == name]
        _draw_delays(above, lines, look, name)
        _draw_errors(below, lines, look)
    above.set_ylim(bottom=0)
    above.set_ylabel("delay, prompts")
    above.set_title(f"{known_language(found.language).name}: delay and errors over {found.rows[0].summary.runs} streams")
    below.set_ylim(bottom=0)
    below.set_ylabel("missed (hollow)\nfalse (filled)")
    below.set_xlabel("threshold, or least divergence of a test, bits")
    add_legend_below(figure, above, 3)
    return figure


def _draw_delays(axes: Axes, lines: list[DetectionRow], look: MethodStyle, name: str) -> None:
    points = [(line.threshold, line.summary.mean_delay) for line in lines if line.summary.mean_delay is not None]
    axes.plot(*_unzip(points), color=look.colour, marker=look.marker, markersize=5, linewidth=1.4, label=name)
    if len(points) == 1:
        axes.axhline(points[0][1], color=look.colour, linewidth=1.0, alpha=0.6)


def _draw_errors(axes: Axes, lines: list[DetectionRow], look: MethodStyle) -> None:
    at = [line.threshold for line in lines]
    missed, false = [line.summary.missed for line in lines], [line.summary.false_alarms for line in lines]
    axes.plot(at, missed, color=look.colour, marker=look.marker, markersize=7, markerfacecolor="white", linestyle=":")
    axes.plot(at, false, color=look.colour, marker=look.marker, markersize=4, linewidth=1.2)


def _unzip(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
