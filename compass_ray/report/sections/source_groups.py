"""Who contributes to whom: added rows by script, family and branch, with lift over the pool (COMPASS, figure 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from compass_ray.core.contributions import Contributions, contributions
from compass_ray.languages import LANGUAGES, Language
from compass_ray.report.blocks import Block, HeadingBlock, TableBlock, TextBlock, format_number
from compass_ray.report.comparison import format_percent
from compass_ray.report.run_reader import language_name
from compass_ray.translations import mark
from compass_ray.translations import translate as _

KINDS: Mapping[str, Callable[[Language], str]] = {
    mark("script"): lambda language: language.script,
    mark("family"): lambda language: language.family,
    mark("branch"): lambda language: language.branch,
}
_DARKEST_LIFT = 4.0
_MOST_SOURCES = 20


def source_group_blocks(added: Mapping[str, Mapping[str, int]], pool: Mapping[str, int]) -> Iterator[Block]:
    """Tables of the rows that were ``added`` for each language, by source language, beside the rows of the ``pool``.

    Empty without added rows or without a pool.
    """
    sources = sorted(pool)
    if not any(added.values()) or any(code not in pool for row in added.values() for code in row):
        return
    targets = list(added)
    rows = [[added[target].get(code, 0) for code in sources] for target in targets]
    own = [sources.index(target) if target in pool else -1 for target in targets]
    found = contributions(rows, [pool[code] for code in sources], own)
    yield HeadingBlock(_("Who contributes to whom"))
    yield TextBlock(
        _(
            "Lift is the number of added rows, divided by the number that is expected if as many rows are drawn at random "
            "from all rows of other languages. The chance level is 1. Languages of the pool without a known script and family "
            "are others."
        )
    )
    yield _related(found, targets, sources)
    for kind, label in KINDS.items():
        yield _matrix(found, _(kind), _labels(targets, label), _labels(sources, label))
    yield _by_source(found, sources, pool)


def _labels(codes: Sequence[str], label: Callable[[Language], str]) -> list[str]:
    """The script, family or branch of each language; empty if unknown."""
    return [label(LANGUAGES[code]) if code in LANGUAGES else "" for code in codes]


def _related(found: Contributions, targets: Sequence[str], sources: Sequence[str]) -> TableBlock:
    """Rows from languages of the same script, family and branch, by language and for all of them."""
    totals = [*found.observed.sum(axis=1), found.observed.sum()]
    header = [_("language"), _("added")]
    columns = [[*map(language_name, targets), _("all languages")], [format_number(total) for total in totals]]
    for kind, label in KINDS.items():
        same = found.within(_labels(targets, label), _labels(sources, label))
        observed, expected = ([*rows[:, 0], rows.sum()] for rows in (same.observed, same.expected))
        header += [_("same {kind}, %", kind=_(kind)), _("at random, %"), _("lift")]
        columns += [[_percent(part, total) for part, total in zip(rows, totals, strict=True)] for rows in (observed, expected)]
        columns.append([_lift(a / e if e else math.nan) for a, e in zip(observed, expected, strict=True)])
    return TableBlock(_("Rows from related languages"), header, list(zip(*columns, strict=True)), strong=(len(targets),))


def _matrix(found: Contributions, kind: str, targets: list[str], sources: list[str]) -> TableBlock:
    """Share and lift by groups of targets and of sources, shaded by lift."""
    rows, columns = (sorted(set(labels), key=lambda label: (not label, label)) for labels in (targets, sources))
    groups = found.grouped([rows.index(label) for label in targets], [columns.index(label) for label in sources])
    shade = [[0.0 if math.isnan(lift) else min(lift / _DARKEST_LIFT, 1.0) for lift in row] for row in groups.lift.tolist()]
    body = [
        (label or _("others"), *(_cell(share, lift) for share, lift in zip(shares, lifts, strict=True)))
        for label, shares, lifts in zip(rows, groups.share.tolist(), groups.lift.tolist(), strict=True)
    ]
    caption = _("Added rows by {kind}: percent of the row's total, with lift in brackets; darker for a larger lift", kind=kind)
    header = (_("for / from"), *(label or _("others") for label in columns))
    return TableBlock(caption, header, body, shades=shade, filtered=False)


def _by_source(found: Contributions, sources: Sequence[str], pool: Mapping[str, int]) -> TableBlock:
    """Source languages by the number of languages that get more rows of them than at random."""
    whole = found.grouped([0] * len(found.observed), range(len(sources)))
    over, possible = (found.observed > found.expected).sum(axis=0), (found.expected > 0).sum(axis=0)
    order = sorted(range(len(sources)), key=lambda s: (-over[s], -found.observed[:, s].sum(), sources[s]))
    rows = [
        (
            language_name(sources[s]),
            format_number(pool[sources[s]]),
            format_number(whole.observed[0, s]),
            _lift(whole.lift[0, s]),
            _("{count} of {total}", count=over[s], total=possible[s]),
        )
        for s in order[:_MOST_SOURCES]
    ]
    header = (_("source language"), _("rows of the pool"), _("added rows"), _("lift"), _("languages with a lift above 1"))
    return TableBlock(_("Sources that contribute to most languages"), header, rows, filtered=False, folded=True)


def _cell(share: float, lift: float) -> str:
    return "–" if math.isnan(share) or math.isnan(lift) else f"{100 * share:.1f} ({lift:.2f})"


def _lift(lift: float) -> str:
    return "–" if math.isnan(lift) else f"{lift:.2f}"


def _percent(part: float, total: float) -> str:
    return format_percent(part / total if total else None)
