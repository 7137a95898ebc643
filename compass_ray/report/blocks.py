"""Blocks of the page: records that the template renders.

Key property: blocks hold plain text and SVG bytes only. The template escapes all text, so a prompt or a reason cannot become
markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from markupsafe import Markup
from matplotlib.figure import Figure

from compass_ray.report.style import inline_svg, to_svg


@dataclass(frozen=True)
class TextBlock:
    """A paragraph. ``verdict`` and ``caution`` are highlighted, ``missing`` names what the run does not have."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "verdict", "caution", "missing"] = "plain"


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
    shades: Sequence[Sequence[float]] = ()
    """How dark each number is drawn, in [0, 1], by row; none if empty."""
    filtered: bool = True
    """Whether a row whose name is a language is hidden if the page shows another one."""


@dataclass(frozen=True)
class PlotImage:
    """One figure as SVG, its alternative text, and its numbers. ``language`` is that of the figure, if it has one."""

    file: str
    alt: str
    data: bytes
    table: TableBlock | None = None
    language: str = ""

    @property
    def markup(self) -> Markup:
        """The picture as an element of the page."""
        return inline_svg(self.data, self.file, self.alt)


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
    """A titled note with prompts. ``language`` is that of the note, if it has one."""

    title: str
    lines: Sequence[str]
    quotes: Sequence[PromptQuote] = ()
    language: str = ""


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


@dataclass(frozen=True)
class LanguageBlock:
    """Blocks of one language. They are hidden if the page shows another one."""

    kind: ClassVar[str] = "language"
    language: str
    blocks: Sequence[Block]


Block = TextBlock | HeadingBlock | TableBlock | PlotsBlock | CardsBlock | StepsBlock | CodeBlock | LanguageBlock


@dataclass(frozen=True)
class ReportHeader:
    """What the page says first: the main result in one sentence, and facts as term and value."""

    headline: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ReportSection:
    """A section of the page: a question as its title, and the blocks that answer it."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)

    @property
    def pictures(self) -> list[PlotImage]:
        """All plots of the section."""
        return [picture for block in _flatten(self.blocks) if isinstance(block, PlotsBlock) for picture in block.pictures]


def _flatten(blocks: Sequence[Block]) -> list[Block]:
    return [each for block in blocks for each in (block.blocks if isinstance(block, LanguageBlock) else [block])]


def plot_image(file: str, figure: Figure, alt: str, table: TableBlock | None = None, language: str = "") -> PlotImage:
    """Render a figure as a plot of the page."""
    return PlotImage(file=file, alt=alt, data=to_svg(figure, file), table=table, language=language)


def missing_note(text: str) -> TextBlock:
    """A paragraph that names what the run does not have."""
    return TextBlock(text, tone="missing")


def format_number(value: float | None, digits: int = 0) -> str:
    """A number as text with thousands separators; a dash for None.

    >>> format_number(12345), format_number(0.1239, 3), format_number(None)
    ('12,345', '0.124', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"
