"""The pictures of a simulation that trains: the plane of learning and forgetting, the size of the buffer, lambda by beta.

Key property: they draw what the record says; a bar is the paired interval of a difference: from naive in the plane, where it lies
around the accuracy that it leads to, and from the first version else.
COMPASS, figure 6, table 12 and appendix D.4.
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

_LOOKS = {
    "static": MethodStyle("#6b7280", "s"),
    "naive": MethodStyle("#c2500a", "^"),
    "full": MethodStyle("#2f3b46", "P"),
    "ewc": MethodStyle("#8a6100", "<"),
    "random_rehearsal": MethodStyle("#00876c", "D"),
    "ecda": METHOD_STYLES["compass"],
}


@with_style
def plot_plane(found: ForgettingResults) -> Figure:
    """Accuracy on old subjects to the right, on new ones upwards, of every strategy over all updates."""
    figure, axes = new_figure(6.2, 4.6)
    for name, each in found.strategies.items():
        look = _LOOKS.get(name, OTHER_STYLE)
        x, y = 100 * each.accuracy.old.mean, 100 * each.accuracy.new.mean
        axes.errorbar(
            [x], [y], xerr=_error_bars(each.over_naive.old), yerr=_error_bars(each.over_naive.new),
            color=look.colour, marker=look.marker, markersize=8, linewidth=1.1, label=name.replace("_", " "), zorder=3,
        )  # fmt: skip
    naive = found.strategies["naive"].accuracy
    axes.axvline(100 * naive.old.mean, color=MUTED, linestyle=":", linewidth=1.1)
    axes.axhline(100 * naive.new.mean, color=MUTED, linestyle=":", linewidth=1.1)
    axes.set_xlabel("right on old subjects after an update, %; bars: 95% of the difference from naive")
    axes.set_ylabel("right on new subjects, %")
    axes.set_title(f"Learning and forgetting, {len(found.periods) - 1} updates, {', '.join(found.languages)}")
    add_legend_below(figure, axes, 3)
    return figure


@with_style
def plot_buffers(found: ForgettingResults) -> Figure:
    """Change by the share of anchors, on old and on new subjects, after the first update."""
    figure, axes = new_figure(6.0, 3.6)
    shares = list(found.buffers)
    for part, look in (("old", METHOD_STYLES["compass"]), ("new", _LOOKS["naive"])):
        values: list[Interval] = [getattr(change.accuracy, part) for change in found.buffers.values()]
        errors = np.hstack([_error_bars(each) for each in values])
        points = [100 * each.mean for each in values]
        axes.errorbar(
            range(len(shares)), points, yerr=errors, color=look.colour, marker=look.marker, capsize=2, label=f"{part} subjects"
        )
    axes.axhline(0, color=MUTED, linewidth=1.0)
    axes.set_xticks(range(len(shares)), [f"{100 * share:g}%" for share in shares])
    axes.set_xlabel("anchors, of the rows trained on")
    axes.set_ylabel("change, points")
    axes.set_title("ECDA by the size of its buffer, after one update")
    add_legend_below(figure, axes, 2)
    return figure


@with_style
def plot_sweep(found: ForgettingResults) -> Figure:
    """Change by lambda and beta, on old subjects to the left, on new ones to the right, after the first update."""
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
    """float64 (2, 1): how far an interval reaches below and above its mean, in points."""
    return 100 * np.array([[interval.mean - interval.low], [interval.high - interval.mean]])
