"""How far each method's training rows lie from the guide set: a part of the section on the gap.

Key property: every method's number is the one its selection wrote, over the same clusters and guide prompts. COMPASS,
section 3.2.2. A lower divergence is no better model: see the section on accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from compass_ray.report.blocks import Block, HeadingBlock, PlotsBlock, TableBlock, TextBlock, format_number, plot_image
from compass_ray.report.plots import plot_divergences
from compass_ray.report.run_reader import METHODS, RunReader, is_version, language_name
from compass_ray.report.style import METHOD_STYLES, OTHER_STYLE

_ADDS_NO_ROWS = ("target",)
"""Adds nothing: its rows are those before."""


def blocks(evidence: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    """A picture of all methods in all languages with its table; nothing where there is one method to show."""
    made = {code: each for code in languages if (each := _measured(evidence, code))}
    before = {code: next(iter(each.values()))[0] for code, each in made.items()}
    after = {name: {code: each[name][1] for code, each in made.items() if name in each} for name in _ordered_methods(made)}
    if len(after) < 2:
        return
    header = ("language", "before", *(METHODS.get(name, name) for name in after))
    rows = [
        (language_name(code), format_number(before[code], 3), *(format_number(found.get(code), 3) for found in after.values()))
        for code in before
    ]
    table = TableBlock("Divergence of each method's training rows from the guide set, in bits", header, rows, folded=True)
    looks = {name: METHOD_STYLES.get(name, OTHER_STYLE) for name in after}
    alt = (
        f"Divergence from the guide set by language, before and with the rows of {len(after)} methods; the table has the numbers."
    )
    yield HeadingBlock("Every method's rows against the guide set")
    yield TextBlock(_describe_lowest(after))
    yield PlotsBlock([plot_image("divergence-by-method.png", plot_divergences(before, after, looks), alt, table)])


def _measured(evidence: RunReader, code: str) -> dict[str, tuple[float, float]]:
    """Divergence before and after by method, of the selections made for the language itself."""
    names = [name for name in evidence.run.selection_names(code) if not is_version(name) and name not in _ADDS_NO_ROWS]
    found = [(name, made) for name in names if (made := evidence.allocation(name, code)) and made.language == code]
    return {
        name: (made.js_before, made.js_after) for name, made in found if made.js_before is not None and made.js_after is not None
    }


def _ordered_methods(made: Mapping[str, Mapping[str, tuple[float, float]]]) -> list[str]:
    """The methods there are, in the order of the comparison, others after them."""
    names = {name for each in made.values() for name in each}
    return sorted(names, key=lambda name: (list(METHODS).index(name) if name in METHODS else len(METHODS), name))


def _describe_lowest(after: Mapping[str, Mapping[str, float]]) -> str:
    """How often each method comes nearest to the guide set, over the languages that all of them have."""
    shared = set.intersection(*(set(found) for found in after.values()))
    wins = {name: sum(found[c] <= min(other[c] for other in after.values()) for c in shared) for name, found in after.items()}
    told = ", ".join(f"{METHODS.get(name, name)} in {many}" for name, many in wins.items() if many)
    return f"Of the {len(shared)} languages that all these methods have, the lowest divergence is that of {told or 'none'}."
