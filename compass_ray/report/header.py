"""What the page says first: the main result in one sentence, and when, how long, in which languages and from which model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compass_ray.artifacts import Attempt, Manifest
from compass_ray.config import RunConfig
from compass_ray.report.blocks import ReportHeader
from compass_ray.report.comparison import SCOPES, Comparison, ComparisonRow, format_percent, format_points, includes_zero
from compass_ray.report.run_reader import RunReader, language_name, method_name
from compass_ray.report.sections.timing import format_duration
from compass_ray.translations import translate as _

_MAX_NAMED_LANGUAGES = 12


def build_header(
    reader: RunReader, config: RunConfig, comparison: Comparison, manifests: Mapping[str, Manifest], attempts: Sequence[Attempt]
) -> ReportHeader:
    """The header of a run's page. Its date is that of the last artifact, so that equal runs have equal pages."""
    facts = [
        (_("Date"), _last_time(manifests)),
        (_("Duration"), format_duration(sum(each.makespan for each in attempts)) if attempts else "–"),
        (_("Languages"), _names([language_name(code) for code in config.languages])),
        (_("Base model"), str(config.train.base_model)),
        (_("Served versions"), _served(reader, config.languages)),
    ]
    return ReportHeader(_headline(comparison), facts)


def _headline(comparison: Comparison) -> str:
    for scope in SCOPES:
        row = comparison.mean_row(scope)
        if row and "compass" in row.accuracy:
            accuracy = _(
                "COMPASS answers {accuracy}% of the items on {scope} correctly (chance {chance}%).",
                accuracy=format_percent(row.accuracy_of("compass")),
                scope=_(SCOPES[scope]),
                chance=format_percent(row.chance),
            )
            return " ".join([accuracy, *_difference(row)])
    return _("COMPASS has not been evaluated yet.")


def _difference(row: ComparisonRow) -> list[str]:
    """The difference from the first baseline, and whether it is significant; empty without one."""
    for baseline, interval in row.difference.items():
        difference = _("Difference from {method}: {points} points.", method=method_name(baseline), points=format_points(interval))
        return [difference, _("It is not significant.")] if includes_zero(interval) else [difference]
    return []


def _last_time(manifests: Mapping[str, Manifest]) -> str:
    times = [str(found) for manifest in manifests.values() if (found := manifest.provenance.get("finished"))]
    return max(times, default="–")[:16].replace("T", " ")


def _served(reader: RunReader, languages: Sequence[str]) -> str:
    live = {code: pointer for code in languages if (pointer := reader.run.live(code))}
    return _names([f"{language_name(code)} {pointer.get('version', '–')}" for code, pointer in live.items()]) or _("none")


def _names(names: Sequence[str]) -> str:
    shown, rest = ", ".join(names[:_MAX_NAMED_LANGUAGES]), len(names) - _MAX_NAMED_LANGUAGES
    return _("{names} and {count} more", names=shown, count=rest) if rest > 0 else shown
