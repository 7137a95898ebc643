"""What a user should look at before trusting a selection, in one sentence each.

Key property: each is read off what the selections wrote down, with the numbers it rests on and what to try. They stop
nothing. COMPASS, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compass_ray.records.allocation import AllocationRecord
from compass_ray.report.run_reader import RunReader, language_name

MAX_NOISE_SHARE = 0.5
"""Share of rows or prompts in noise above which clusters say little about them."""
_MAX_NAMED_LANGUAGES = 6


def find_warnings(evidence: RunReader, languages: Sequence[str]) -> list[str]:
    """Sentences about COMPASS's selections for some languages; none where all is as it should be."""
    found = {code: made for code in languages if (made := evidence.allocation("compass", code))}
    return [*_noise(found), *_widened_gaps(found), *_unfilled(found)]


def _noise(found: dict[str, AllocationRecord]) -> Iterator[str]:
    pools = [_share(made.noise.target + made.noise.auxiliary, _rows(made)) for made in found.values()]
    if pools and max(pools) > MAX_NOISE_SHARE:
        yield (
            f"{max(pools):.0%} of the pool is noise to the clusters, and noise is never selected; "
            f"try cluster.method=kmeans, or look at the sweep"
        )
    noisy = [code for code, made in found.items() if _share(made.noise.guide, made.n_guide) > MAX_NOISE_SHARE]
    if noisy:
        yield f"most guide prompts of {_names(noisy)} are noise to the clusters, and weigh nothing in the selection"


def _widened_gaps(found: dict[str, AllocationRecord]) -> Iterator[str]:
    wider = {
        code: made
        for code, made in found.items()
        if made.js_before is not None and made.js_after is not None and made.js_after > made.js_before
    }
    if wider:
        worst = max(wider.values(), key=lambda made: (made.js_after or 0.0) - (made.js_before or 0.0))
        yield (
            f"the selection widens the gap in {_names(list(wider))}, most in {language_name(worst.language)} "
            f"({worst.js_before:.3f} to {worst.js_after:.3f} bits); try select.weights=deficit or a smaller select.budget"
        )


def _unfilled(found: dict[str, AllocationRecord]) -> Iterator[str]:
    short = {code: made for code, made in found.items() if made.unfilled > 0}
    if short:
        missing = sum(made.unfilled for made in short.values())
        sought = sum(made.budget for made in short.values())
        yield (
            f"{missing} of {sought} rows of the budget of {_names(list(short))} found no candidates; "
            f"try a smaller select.budget, or select.overflow=repeat if it is not set"
        )


def _rows(made: AllocationRecord) -> int:
    clustered = sum(each.n_target + each.n_aux for each in made.clusters)
    return clustered + made.noise.target + made.noise.auxiliary


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _names(codes: Sequence[str]) -> str:
    shown = ", ".join(language_name(code) for code in codes[:_MAX_NAMED_LANGUAGES])
    return shown if len(codes) <= _MAX_NAMED_LANGUAGES else f"{shown} and {len(codes) - _MAX_NAMED_LANGUAGES} more"
