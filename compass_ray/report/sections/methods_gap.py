"""Part of the section on the gap: divergence of each method's training rows from the guide set.

Key property: each number is the one that the method's selection wrote, over the same clusters and guide prompts. A lower
divergence does not imply a better model: see the section on accuracy. COMPASS, section 3.2.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from compass_ray.report.blocks import Block, HeadingBlock, PlotsBlock, TableBlock, TextBlock, format_number, plot_image
from compass_ray.report.plots import plot_divergences
from compass_ray.report.run_reader import METHODS, RunReader, is_version, language_name, method_name
from compass_ray.report.style import METHOD_STYLES, OTHER_STYLE
from compass_ray.translations import translate as _

_ADDS_NO_ROWS = ("target", "own_repeated")
"""Methods that add no rows, so their divergence is the one before selection."""


def blocks(reader: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    """Plot of all methods in all languages with its table. Empty if there are fewer than two methods."""
    made = {code: each for code in languages if (each := _measured(reader, code))}
    before = {code: next(iter(each.values()))[0] for code, each in made.items()}
    after = {name: {code: each[name][1] for code, each in made.items() if name in each} for name in _ordered_methods(made)}
    if len(after) < 2:
        return
    header = (_("language"), _("before"), *(method_name(name) for name in after))
    rows = [
        (language_name(code), format_number(before[code], 3), *(format_number(found.get(code), 3) for found in after.values()))
        for code in before
    ]
    table = TableBlock(_("Divergence of each method's training rows from the guide set, in bits"), header, rows, folded=True)
    styles = {name: METHOD_STYLES.get(name, OTHER_STYLE) for name in after}
    alt = _(
        "Divergence from the guide set by language, before selection and with the rows of {count} methods. "
        "The table below the plot has the numbers.",
        count=len(after),
    )
    title = _("Divergence by method")
    yield HeadingBlock(title)
    yield TextBlock(_describe_lowest(after))
    yield PlotsBlock([plot_image("divergence-by-method.svg", plot_divergences(before, after, styles, title), alt, table)])


def _measured(reader: RunReader, code: str) -> dict[str, tuple[float, float]]:
    """Divergence before and after by method, of selections for this language only."""
    names = [name for name in reader.run.selection_names(code) if not is_version(name) and name not in _ADDS_NO_ROWS]
    found = [(name, made) for name in names if (made := reader.allocation(name, code)) and made.language == code]
    return {
        name: (made.js_before, made.js_after) for name, made in found if made.js_before is not None and made.js_after is not None
    }


def _ordered_methods(made: Mapping[str, Mapping[str, tuple[float, float]]]) -> list[str]:
    """Methods in the order of the comparison, then others by name."""
    names = {name for each in made.values() for name in each}
    return sorted(names, key=lambda name: (list(METHODS).index(name) if name in METHODS else len(METHODS), name))


def _describe_lowest(after: Mapping[str, Mapping[str, float]]) -> str:
    """In how many of the languages that all methods have each method has the lowest divergence."""
    shared = set.intersection(*(set(found) for found in after.values()))
    wins = {name: sum(found[c] <= min(other[c] for other in after.values()) for c in shared) for name, found in after.items()}
    counts = ", ".join(f"{method_name(name)} {count}" for name, count in wins.items() if count)
    return _(
        "Languages with selections of all these methods: {count}. Lowest divergence by method: {methods}.",
        count=len(shared),
        methods=counts or _("none"),
    )
