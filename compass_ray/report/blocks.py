"""Blocks of the page: records that the template renders.

Key property: blocks hold plain text and PNG bytes only. The template escapes all text, so a prompt or a reason cannot become
markup.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from matplotlib.figure import Figure

from compass_ray.report.style import display_width, to_png


@dataclass(frozen=True)
class TextBlock:
    """A paragraph. ``verdict`` is highlighted, ``missing`` names what the run does not have."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "verdict", "missing"] = "plain"


@dataclass(frozen=True)
class HeadingBlock:
    """A heading one level below the section's heading."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class TableBlock:
    """A table. The first column names the row; columns from index ``numbers`` on are numbers."""

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 1
    folded: bool = False
    strong: Sequence[int] = ()
    """Indices of highlighted rows."""


@dataclass(frozen=True)
class PlotImage:
    """One figure as PNG, its alternative text, and its numbers."""

    file: str
    alt: str
    data: bytes
    table: TableBlock | None = None

    @property
    def width(self) -> int:
        """Width in CSS pixels, if the page is wide enough."""
        return display_width(self.data)

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class PlotsBlock:
    """Plots, side by side if the page is wide enough."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[PlotImage]


@dataclass(frozen=True)
class PromptQuote:
    """A prompt with its language and a note."""

    prompt: str
    language: str
    note: str = ""


@dataclass(frozen=True)
class NoteCard:
    """A titled note with prompts."""

    title: str
    lines: Sequence[str]
    quotes: Sequence[PromptQuote] = ()


@dataclass(frozen=True)
class CardsBlock:
    """Cards below a summary line."""

    kind: ClassVar[str] = "cards"
    summary: str
    cards: Sequence[NoteCard]
    folded: bool = True


@dataclass(frozen=True)
class StepsBlock:
    """A numbered list."""

    kind: ClassVar[str] = "steps"
    lines: Sequence[str]


@dataclass(frozen=True)
class CodeBlock:
    """Preformatted text."""

    kind: ClassVar[str] = "code"
    summary: str
    text: str


Block = TextBlock | HeadingBlock | TableBlock | PlotsBlock | CardsBlock | StepsBlock | CodeBlock


@dataclass(frozen=True)
class ReportSection:
    """A section of the page: a question as its title, and the blocks that answer it."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)

    @property
    def pictures(self) -> list[PlotImage]:
        """All plots of the section."""
        return [p for block in self.blocks if isinstance(block, PlotsBlock) for p in block.pictures]


def plot_image(file: str, figure: Figure, alt: str, table: TableBlock | None = None) -> PlotImage:
    """Render a figure as a plot of the page."""
    return PlotImage(file=file, alt=alt, data=to_png(figure), table=table)


def missing_note(text: str) -> TextBlock:
    """A paragraph that names what the run does not have."""
    return TextBlock(text, tone="missing")


def format_number(value: float | None, digits: int = 0) -> str:
    """A number as text with thousands separators; a dash for None.

    >>> format_number(12345), format_number(0.1239, 3), format_number(None)
    ('12,345', '0.124', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"
