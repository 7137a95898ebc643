"""Bias simulation: drop rows of some subjects of a target language, as in unevenly collected data.

Seeded by subject; rows without a subject are kept. COMPASS, section 4.3.1 prints both "to 20%" and "removing 50%", so the
share kept is an argument. Only the target's rows are thinned, never the guide set.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from compass_ray.core.array_checks import BoolArray, check_fraction


@dataclass(frozen=True)
class SimulatedBias:
    """`kept` bool[n], the remaining rows; `thinned_subjects`, sorted."""

    kept: BoolArray
    thinned_subjects: tuple[str, ...]


def simulate_bias(
    subjects: Sequence[str | None],
    *,
    p_low: float = 0.2,
    keep: float = 0.5,
    groups: Sequence[Collection[str]] = (),
    rng: np.random.Generator,
) -> SimulatedBias:
    """Thin each subject with probability `p_low` to the fraction `keep` of its rows, rounded.

    Subjects are drawn in sorted order. If none is drawn, one is picked uniformly, so that a language with few
    subjects still has a gap; with `p_low` 0 nothing is thinned. If no subject of one of the `groups` is drawn, one of them is
    picked uniformly. A thinned subject keeps at least one row unless `keep` is 0. ValueError on fractions outside 0 to 1.

    >>> bias = simulate_bias(["law"] * 4 + [None], p_low=1.0, keep=0.5, rng=np.random.default_rng(0))
    >>> int(bias.kept.sum()), bool(bias.kept[4]), bias.thinned_subjects
    (3, True, ('law',))
    """
    check_fraction(p_low, "p_low")
    check_fraction(keep, "keep")
    names = sorted({subject for subject in subjects if subject is not None})
    low = _low_subjects(names, p_low, groups, rng)
    kept = np.ones(len(subjects), np.bool_)
    by_row = np.array(subjects, dtype=object)
    for name in low:
        rows = np.flatnonzero(by_row == name)
        removed = len(rows) - max(round(keep * len(rows)), int(keep > 0.0))
        kept[rng.choice(rows, size=removed, replace=False)] = False
    return SimulatedBias(kept, low)


def _low_subjects(names: list[str], p_low: float, groups: Sequence[Collection[str]], rng: np.random.Generator) -> tuple[str, ...]:
    low = [name for name, chance in zip(names, rng.random(len(names)), strict=True) if chance < p_low]
    if p_low > 0.0:
        for group in ((names,) if not low else ()) + tuple(groups):
            members = [name for name in names if name in group]
            if members and not set(members).intersection(low):
                low.append(members[int(rng.integers(len(members)))])
    return tuple(sorted(low))
