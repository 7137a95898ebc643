"""The picture of when each language was selected for, trained and scored.

Key property: bars are what was measured; where a bar of one language's training begins before another's selection has
ended, the two stages overlapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from compass_ray.report.style import METHOD_STYLES, MUTED, new_figure, with_style
from compass_ray.report.utilisation import Span

_COLOURS = {"select": MUTED, "train": METHOD_STYLES["compass"].colour, "evaluate": METHOD_STYLES["target"].colour}
_WORDS = {"select": "selected for", "train": "trained", "evaluate": "scored"}
_LEAST = 0.004
"""Of the whole, so that a bar of a moment can be seen."""

STAGES = tuple(_COLOURS)
"""Stages that work language by language."""


@with_style
def plot_timeline(rows: Mapping[str, Sequence[Span]]) -> Figure:
    """A line for each language, from the top in the order given; time in seconds since the first bar."""
    origin = min(span.started for found in rows.values() for span in found)
    end = max(span.finished for found in rows.values() for span in found)
    figure, axes = new_figure(7.2, 1.1 + 0.19 * max(len(rows), 4))
    for place, found in enumerate(rows.values()):
        for span in found:
            length = max(span.finished - span.started, _LEAST * (end - origin))
            axes.barh(place, length, left=span.started - origin, height=0.68, color=_COLOURS[span.stage])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("seconds since the first selection began")
    shown = {span.stage for found in rows.values() for span in found}
    handles = [Patch(color=_COLOURS[stage], label=_WORDS[stage]) for stage in STAGES if stage in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
