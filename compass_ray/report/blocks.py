"""What the page is made of: a few kinds of block, each a record that the template knows how to show.

Key property: blocks hold plain text and PNG bytes only. Escaping is the template's, so nothing that a
prompt or a reason says can become markup.
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
    """A paragraph; ``verdict`` is set off, ``missing`` says what the run does not hold."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "verdict", "missing"] = "plain"


@dataclass(frozen=True)
class HeadingBlock:
    """A heading below the section's."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class TableBlock:
    """Rows below a header. The first column names the row, those from ``numbers`` on are numbers."""

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 1
    folded: bool = False
    strong: Sequence[int] = ()
    """Places of rows to set off."""


@dataclass(frozen=True)
class PlotImage:
    """One figure as PNG, what it shows in words, and the numbers behind it."""

    file: str
    alt: str
    data: bytes
    table: TableBlock | None = None

    @property
    def width(self) -> int:
        """Width in CSS pixels, where there is room for it."""
        return display_width(self.data)

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class PlotsBlock:
    """Pictures side by side where there is room."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[PlotImage]


@dataclass(frozen=True)
class PromptQuote:
    """A prompt in its own language, and what is said of it."""

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
    """Lines that follow one another."""

    kind: ClassVar[str] = "steps"
    lines: Sequence[str]


@dataclass(frozen=True)
class CodeBlock:
    """Text shown as it is."""

    kind: ClassVar[str] = "code"
    summary: str
    text: str


Block = TextBlock | HeadingBlock | TableBlock | PlotsBlock | CardsBlock | StepsBlock | CodeBlock


@dataclass(frozen=True)
class ReportSection:
    """One question and its answer."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)

    @property
    def pictures(self) -> list[PlotImage]:
        """All pictures of the section."""
        return [p for block in self.blocks if isinstance(block, PlotsBlock) for p in block.pictures]


def plot_image(file: str, figure: Figure, alt: str, table: TableBlock | None = None) -> PlotImage:
    """A picture of a figure."""
    return PlotImage(file=file, alt=alt, data=to_png(figure), table=table)


def missing_note(text: str) -> TextBlock:
    """A plain statement of what the run does not hold."""
    return TextBlock(text, tone="missing")


def format_number(value: float | None, digits: int = 0) -> str:
    """A number as text, with thousands apart; a dash for none.

    >>> format_number(12345), format_number(0.1239, 3), format_number(None)
    ('12,345', '0.124', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"
