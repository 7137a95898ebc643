"""Plots of a simulation with training: learning against forgetting, buffer size, and lambda by beta.

The record has the same numbers. Error bars are paired intervals of a difference: from naive training in the plane of
learning and forgetting, drawn around the accuracy; from the first version in the other plots. COMPASS, figure 6, table 12
and appendix D.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compass_ray.core.bootstrap import Interval
from compass_ray.evaluation.simulation.forgetting.results import AccuracyChange, ForgettingResults
from compass_ray.report.style import METHOD_STYLES, MUTED, OTHER_STYLE, MethodStyle, add_legend_below, new_figure, with_style

_STYLES = {
    "static": MethodStyle("#6b7280", "s"),
    "naive": MethodStyle("#c2500a", "^"),
    "full": MethodStyle("#2f3b46", "P"),
    "ewc": MethodStyle("#8a6100", "<"),
    "random_rehearsal": MethodStyle("#00876c", "D"),
    "ecda": METHOD_STYLES["compass"],
}


_MARKERS = "ov*XhpdH8"
"""Of variants without a style of their own."""


@with_style
def plot_plane(found: ForgettingResults) -> Figure:
    """Plot accuracy on old subjects (x) and new subjects (y) of every strategy over all updates."""
    figure, axes = new_figure(6.2, 4.6)
    others = [name for name in found.strategies if name not in _STYLES]
    styles = _STYLES | {name: MethodStyle(OTHER_STYLE.colour, _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(others)}
    for name, each in found.strategies.items():
        style = styles[name]
        x, y = 100 * each.accuracy.old.mean, 100 * each.accuracy.new.mean
        axes.errorbar(
            [x], [y], xerr=_error_bars(each.over_naive.old), yerr=_error_bars(each.over_naive.new),
            color=style.colour, marker=style.marker, markersize=8, linewidth=1.1, label=name.replace("_", " "), zorder=3,
        )  # fmt: skip
    naive = found.strategies["naive"].accuracy
    axes.axvline(100 * naive.old.mean, color=MUTED, linestyle=":", linewidth=1.1)
    axes.axhline(100 * naive.new.mean, color=MUTED, linestyle=":", linewidth=1.1)
    axes.set_xlabel("accuracy on old subjects, %; bars: 95% interval of the difference from naive")
    axes.set_ylabel("accuracy on new subjects, %")
    axes.set_title(f"Learning and forgetting, {len(found.periods) - 1} updates, {', '.join(found.languages)}")
    add_legend_below(figure, axes, 3)
    return figure


@with_style
def plot_buffers(found: ForgettingResults) -> Figure:
    """Plot the change on old and new subjects after the first update, by the share of anchors."""
    figure, axes = new_figure(6.0, 3.6)
    shares = list(found.buffers)
    for part, style in (("old", METHOD_STYLES["compass"]), ("new", _STYLES["naive"])):
        values: list[Interval] = [getattr(change.accuracy, part) for change in found.buffers.values()]
        errors = np.hstack([_error_bars(each) for each in values])
        points = [100 * each.mean for each in values]
        axes.errorbar(
            range(len(shares)), points, yerr=errors, color=style.colour, marker=style.marker, capsize=2, label=f"{part} subjects"
        )
    axes.axhline(0, color=MUTED, linewidth=1.0)
    axes.set_xticks(range(len(shares)), [f"{100 * share:g}%" for share in shares])
    axes.set_xlabel("anchors, share of the training rows")
    axes.set_ylabel("change, points")
    axes.set_title("ECDA by buffer size, after one update")
    add_legend_below(figure, axes, 2)
    return figure


@with_style
def plot_sweep(found: ForgettingResults) -> Figure:
    """Plot the change after the first update by lambda and beta: old subjects left, new subjects right."""
    figure = Figure(figsize=(7.4, 3.6), layout="constrained")
    for axes, part in zip(figure.subplots(1, 2), ("old", "new"), strict=True):
        _draw_heat_map(axes, found.sweep, part)
    return figure


def _draw_heat_map(axes: Axes, swept: Mapping[tuple[float, float], AccuracyChange], part: str) -> None:
    lambdas, betas = sorted({one for one, _ in swept}), sorted({two for _, two in swept})
    values = np.array([[100 * getattr(swept[one, two].accuracy, part).mean for two in betas] for one in lambdas])
    middle = values.mean()
    axes.imshow(values, cmap="Blues", vmin=values.min() - 2, vmax=values.max() + 2, aspect="auto")
    for row, column in product(range(len(lambdas)), range(len(betas))):
        shade = "white" if values[row, column] > middle + 2 else "black"
        axes.text(column, row, f"{values[row, column]:+.1f}", ha="center", va="center", fontsize=8, color=shade)
    axes.set_xticks(range(len(betas)), [f"{each:g}" for each in betas])
    axes.set_yticks(range(len(lambdas)), [f"{each:g}" for each in lambdas])
    axes.set_xlabel("beta")
    axes.set_ylabel("lambda")
    axes.grid(visible=False)
    axes.set_title(f"Change on {part} subjects, points")


def _error_bars(interval: Interval) -> np.ndarray:
    """Distance of an interval's ends below and above its mean, in points, float64 (2, 1)."""
    return 100 * np.array([[interval.mean - interval.low], [interval.high - interval.mean]])
