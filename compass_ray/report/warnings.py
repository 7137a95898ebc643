"""Warnings about a clustering and its selections.

Key property: each warning follows from the records of the run. It states the numbers and what to try. Warnings stop
nothing. COMPASS, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compass_ray.records.allocation import AllocationRecord
from compass_ray.report.run_reader import RunReader, language_name

MAX_NOISE_SHARE = 0.5
"""Share of noise above which the clusters describe too few rows or prompts."""
_MAX_NAMED_LANGUAGES = 6


def find_warnings(reader: RunReader, languages: Sequence[str]) -> list[str]:
    """Warnings about the clusters and the COMPASS selections of some languages; empty if there is no problem."""
    allocations = {code: allocation for code in languages if (allocation := reader.allocation("compass", code))}
    return [*_degeneracies(reader, languages), *_noise(allocations), *_widened_gaps(allocations), *_unfilled(allocations)]


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
        yield (
            f"{max(pools):.0%} of the pool is noise, which is never selected; "
            f"try cluster.method=kmeans, or check the clustering sweep"
        )
    noisy = [
        code for code, allocation in allocations.items() if _share(allocation.noise.guide, allocation.n_guide) > MAX_NOISE_SHARE
    ]
    if noisy:
        yield f"most guide prompts of {_names(noisy)} are noise and have no influence on the selection"


def _widened_gaps(allocations: dict[str, AllocationRecord]) -> Iterator[str]:
    wider = {
        code: allocation
        for code, allocation in allocations.items()
        if allocation.js_before is not None and allocation.js_after is not None and allocation.js_after > allocation.js_before
    }
    if wider:
        worst = max(wider.values(), key=lambda allocation: (allocation.js_after or 0.0) - (allocation.js_before or 0.0))
        yield (
            f"the selection increases the divergence in {_names(list(wider))}, most in {language_name(worst.language)} "
            f"({worst.js_before:.3f} to {worst.js_after:.3f} bits); try select.weights=deficit or a smaller select.budget"
        )


def _unfilled(allocations: dict[str, AllocationRecord]) -> Iterator[str]:
    short = {code: allocation for code, allocation in allocations.items() if allocation.unfilled > 0}
    if short:
        missing = sum(allocation.unfilled for allocation in short.values())
        budget = sum(allocation.budget for allocation in short.values())
        yield (
            f"{missing} of {budget} rows of the budget have no candidates ({_names(list(short))}); "
            f"try a smaller select.budget, or select.overflow=repeat"
        )


def _rows(allocation: AllocationRecord) -> int:
    clustered = sum(each.n_target + each.n_aux for each in allocation.clusters)
    return clustered + allocation.noise.target + allocation.noise.auxiliary


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def _names(codes: Sequence[str]) -> str:
    shown = ", ".join(language_name(code) for code in codes[:_MAX_NAMED_LANGUAGES])
    return shown if len(codes) <= _MAX_NAMED_LANGUAGES else f"{shown} and {len(codes) - _MAX_NAMED_LANGUAGES} more"
