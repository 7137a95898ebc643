"""Style of the plots: palette, font, and export as SVG for the page or as PNG.

Key property: no information is shown by colour alone; every method has its own marker. All colours have a contrast of at least
3 to 1 on white, and `DARK` on the dark page, and are distinguishable for colour-blind readers (after Okabe and Ito). Labels with
names of clusters are ASCII or Latin, because the bundled font lacks the glyphs of the languages' other scripts.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

import matplotlib
from markupsafe import Markup
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
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class MethodStyle:
    """Colour and marker of one method."""

    colour: str
    marker: str


_CHARACTERS_PER_INCH, _SYMBOL_CHARACTERS = 15, 5
"""Characters of a legend in one inch, and the room of its symbols."""

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

DARK: dict[str, str] = {
    "#ffffff": "#14171b",
    INK: "#e6e9ed",
    MUTED: "#a4afba",
    RULE: "#30373f",
    "#6b7280": "#9aa5b1",
    "#c2500a": "#f2955a",
    "#00876c": "#4cc9ac",
    "#0062a8": "#6bb6f2",
    "#2f3b46": "#c3ced9",
    "#8a6100": "#d9ac4a",
    "#b5477f": "#e792bf",
    "#6a3fb5": "#b799f0",
    "#5a7a00": "#a9c94b",
    "#0b7285": "#5bc4d8",
    "#7a4b2a": "#c99873",
    "#8f2d8f": "#dc86dc",
    "#a04000": "#e88b55",
    "#4a5568": "#a3b0c2",
    "#b3261e": "#ff8f86",
    "#a0427d": "#e08fc0",
}
"""Colour of each plotted colour on the dark page."""
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"'DejaVu Sans'[^;\"]*")
_LEFT_OUT = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<title>.*?</title>", re.DOTALL)

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


def set_wide_title(figure: Figure, title: str) -> None:
    """A title from the left edge of the figure, for one that is wider than the panel."""
    size, weight = matplotlib.rcParams["axes.titlesize"], matplotlib.rcParams["axes.titleweight"]
    figure.suptitle(title, x=0.02, ha="left", fontsize=size, fontweight=weight)


def add_legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """Add a legend below the panel, so that it hides no data; with fewer than ``columns`` if the labels are too wide."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        fitting = int(figure.get_figwidth() * _CHARACTERS_PER_INCH) // (max(map(len, labels)) + _SYMBOL_CHARACTERS)
        columns = max(1, min(columns, fitting))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handletextpad=0.4, columnspacing=1.4)


def to_png(figure: Figure) -> bytes:
    """The figure as PNG. Equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure, name: str) -> bytes:
    """The figure as an SVG file of its own. Equal figures of one name give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def inline_svg(picture: bytes, name: str, alt: str) -> Markup:
    """An SVG of `to_svg` as markup for a page: its colours follow the page's scheme, its text has the page's font.

    ``name`` makes its ids unique on the page. The text of the picture was escaped by matplotlib.
    """
    text = _LEFT_OUT.sub("", picture.decode())
    text = text[text.index("<svg") :]
    head, body = text.split(">", 1)
    found = re.search(r'viewBox="([^"]+)"', head)
    assert found is not None
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r' id="([^"]+)"', rf' id="{prefix}-\1"', body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}-', body).replace("url(#", f"url(#{prefix}-")
    body = _FONT.sub("var(--font)", _COLOUR.sub(lambda colour: f"var(--p-{colour[0][1:]},{colour[0]})", body))
    body = re.sub(r">\s+<", "><", body.strip())
    width = round(float(found[1].split()[2]) * 96 / 72)
    opening = Markup('<svg class="plot" role="img" aria-label="{}" viewBox="{}" style="--width:{}px">').format(
        alt, found[1], width
    )
    return opening + Markup(body)


def dark_palette() -> str:
    """CSS declarations of the plots' colours on the dark page."""
    return " ".join(f"--p-{light[1:]}: {dark};" for light, dark in DARK.items())


def printable_label(text: str | None, fallback: str, limit: int = 22) -> str:
    """Text shortened to ``limit`` characters; the fallback if the font cannot draw it.

    >>> printable_label("history", "cluster 3"), printable_label("\N{ETHIOPIC SYLLABLE HA}", "cluster 3")
    ('history', 'cluster 3')
    """
    if not text or not text.isprintable() or any(ord(character) > 0x24F for character in text):
        return fallback
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
