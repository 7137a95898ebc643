"""Style of the plots: palette, font and PNG export.

Key property: no information is shown by colour alone; every method has its own marker. All colours have a contrast of at least
3 to 1 on white and are distinguishable for colour-blind readers (after Okabe and Ito). Text in plots is ASCII or Latin,
because the bundled font lacks the glyphs of the languages' other scripts. Prompts are shown on the page instead.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1b1f24"
MUTED = "#5c6670"
RULE = "#dfe3e8"
GUIDE = "#1b1f24"
DPI = 144
"""Twice 72 points per inch: sharp on a high-density screen, about 30 kB per plot."""

RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.major.pad": 7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class MethodStyle:
    """Colour and marker of one method."""

    colour: str
    marker: str


METHOD_STYLES: dict[str, MethodStyle] = {
    "zero_shot": MethodStyle("#6b7280", "s"),
    "target": MethodStyle("#c2500a", "^"),
    "random": MethodStyle("#00876c", "D"),
    "compass": MethodStyle("#0062a8", "o"),
    "all": MethodStyle("#2f3b46", "P"),
    "langrank": MethodStyle("#8a6100", "<"),
    "langsim": MethodStyle("#b5477f", ">"),
    "dsir": MethodStyle("#6a3fb5", "X"),
    "nearest": MethodStyle("#5a7a00", "h"),
    "round_robin": MethodStyle("#0b7285", "*"),
    "placebo": MethodStyle("#7a4b2a", "x"),
    "oracle": MethodStyle("#8f2d8f", "8"),
    "own_repeated": MethodStyle("#a04000", "1"),
    **{f"quantile_{number}": MethodStyle("#4a5568", f"${number}$") for number in range(1, 6)},
    "compass_fft": MethodStyle("#b3261e", "p"),
}
OTHER_STYLE = MethodStyle("#6b7280", "d")
"""Style of any other method."""
UPDATED_STYLE = MethodStyle("#a0427d", "v")
"""Adapter versions after the first."""

P = ParamSpec("P")


def with_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with the settings of `RC`, without changing matplotlib's global settings."""

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return inner


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one panel; sizes in inches. It uses no window and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def add_legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """Add a legend below the panel, so that it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handletextpad=0.4, columnspacing=1.4)


def to_png(figure: Figure) -> bytes:
    """The figure as PNG. Equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def display_width(picture: bytes) -> int:
    """Width in CSS pixels at which the text of a PNG from `to_png` has its intended size of 9 points."""
    pixels = int.from_bytes(picture[16:20], "big")
    return round(pixels * 96 / DPI)


def printable_label(text: str | None, fallback: str, limit: int = 26) -> str:
    """Text shortened to ``limit`` characters; the fallback if the font cannot draw it.

    >>> printable_label("history", "cluster 3"), printable_label("\N{ETHIOPIC SYLLABLE HA}", "cluster 3")
    ('history', 'cluster 3')
    """
    if not text or not text.isprintable() or any(ord(character) > 0x24F for character in text):
        return fallback
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
