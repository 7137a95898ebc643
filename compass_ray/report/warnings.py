"""Warnings about a clustering and its selections.

Key property: each warning follows from the records of the run. It states the numbers and what to try. Warnings stop
nothing. COMPASS, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compass_ray.records.allocation import AllocationRecord
from compass_ray.report.cluster_description import cluster_names
from compass_ray.report.run_reader import RunReader, language_name
from compass_ray.translations import translate as _

MAX_NOISE_SHARE = 0.5
"""Share of noise above which the clusters describe too few rows or prompts."""
MAX_OVERFILL = 0.05
"""Excess of a cluster's share of the training rows over that of the guide prompts above which it is overfilled."""
_MAX_NAMED_LANGUAGES = 6
_MAX_NAMED_CLUSTERS = 4


def find_warnings(reader: RunReader, languages: Sequence[str]) -> list[str]:
    """Warnings about the clusters and the COMPASS selections of some languages; empty if there is no problem."""
    allocations = {code: allocation for code in languages if (allocation := reader.allocation("compass", code))}
    return [
        *_degeneracies(reader, languages),
        *_noise(allocations),
        *_widened_gaps(allocations, _remedy(reader)),
        *_overfilled(reader, allocations, _remedy(reader)),
        *_unfilled(allocations),
    ]


def _degeneracies(reader: RunReader, languages: Sequence[str]) -> Iterator[str]:
    """What is degenerate in each clustering; noisy guide prompts are told by `_noise`."""
    owners = {reader.clusters(code).name: code for code in languages}
    for name, code in owners.items():
        sweep = reader.sweep(code)
        for each in sweep.degeneracies() if sweep else ():
            yield f"{name}: {each.found}; {each.remedy}"


def _noise(allocations: dict[str, AllocationRecord]) -> Iterator[str]:
    pools = [
        _share(allocation.noise.target + allocation.noise.auxiliary, _rows(allocation)) for allocation in allocations.values()
    ]
    if pools and max(pools) > MAX_NOISE_SHARE:
        yield _(
            "{share} of the pool is noise, which is never selected; try cluster.method=kmeans, or check the clustering sweep",
            share=f"{max(pools):.0%}",
        )
    noisy = [
        code for code, allocation in allocations.items() if _share(allocation.noise.guide, allocation.n_guide) > MAX_NOISE_SHARE
    ]
    if noisy:
        yield _("most guide prompts of {languages} are noise and have no influence on the selection", languages=_names(noisy))


def _remedy(reader: RunReader) -> str:
    """What to change if a selection fills the wrong clusters."""
    config = reader.config
    if config is not None and config.select.weights == "deficit":
        return "select.budget"
    return "select.weights=deficit, select.budget"


def _widened_gaps(allocations: dict[str, AllocationRecord], remedy: str) -> Iterator[str]:
    wider = {
        code: allocation
        for code, allocation in allocations.items()
        if allocation.js_before is not None and allocation.js_after is not None and allocation.js_after > allocation.js_before
    }
    if wider:
        worst = max(wider.values(), key=lambda allocation: (allocation.js_after or 0.0) - (allocation.js_before or 0.0))
        yield _(
            "the selection increases the divergence; languages: {languages}; largest increase: {worst}, {before} to {after} "
            "bits; settings to change: {remedy}",
            languages=_names(list(wider)),
            worst=language_name(worst.language),
            before=f"{worst.js_before:.3f}",
            after=f"{worst.js_after:.3f}",
            remedy=remedy,
        )


def _overfilled(reader: RunReader, allocations: dict[str, AllocationRecord], remedy: str) -> Iterator[str]:
    """Clusters to which the selection added rows until they have a much larger share than in the guide set."""
    found: list[tuple[float, str]] = []
    for code, allocation in allocations.items():
        if not allocation.n_guide:
            continue
        names, gap = cluster_names(allocation, reader.sweep(code)), allocation.gap
        for index, quota in enumerate(allocation.clusters):
            guide, after = float(gap.p_eval[index]), float(gap.p_after[index])
            if quota.selected and after - guide > MAX_OVERFILL and after > float(gap.p_before[index]):
                found.append(
                    (
                        after - guide,
                        _(
                            "{cluster} in {language} ({after} of the training rows, {guide} of the guide prompts)",
                            cluster=names[index],
                            language=language_name(code),
                            after=f"{after:.1%}",
                            guide=f"{guide:.1%}",
                        ),
                    )
                )
    if found:
        named = [text for _excess, text in sorted(found, key=lambda each: -each[0])[:_MAX_NAMED_CLUSTERS]]
        yield _(
            "overfilled clusters ({count}): {clusters}; settings to change: {remedy}",
            count=len(found),
            clusters="; ".join(named),
            remedy=remedy,
        )


def _unfilled(allocations: dict[str, AllocationRecord]) -> Iterator[str]:
    short = {code: allocation for code, allocation in allocations.items() if allocation.unfilled > 0}
    if short:
        missing = sum(allocation.unfilled for allocation in short.values())
        budget = sum(allocation.budget for allocation in short.values())
        yield _(
            "{missing} of {budget} rows of the budget have no candidates ({languages}); "
            "try a smaller select.budget, or select.overflow=repeat",
            missing=missing,
            budget=budget,
            languages=_names(list(short)),
        )


def _rows(allocation: AllocationRecord) -> int:
    clustered = sum(each.n_target + each.n_aux for each in allocation.clusters)
    return clustered + allocation.noise.target + allocation.noise.auxiliary


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def _names(codes: Sequence[str]) -> str:
    shown = ", ".join(language_name(code) for code in codes[:_MAX_NAMED_LANGUAGES])
    rest = len(codes) - _MAX_NAMED_LANGUAGES
    return _("{names} and {count} more", names=shown, count=rest) if rest > 0 else shown
