"""Degenerate clusterings: results that make targeting by clusters close to random sampling.

Pure functions of counts. A degenerate result is no error: weights and quotas remain defined, but they carry little
information. Not in COMPASS, section 3.2.1, which takes the best setting of its sweep as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import IntArray, as_counts
from compass_ray.core.distribution import noise_share, probabilities

MAX_LARGEST_SHARE = 0.5
"""Largest share of the assigned rows that one cluster may hold."""
MIN_EFFECTIVE_CLUSTERS = 5.0
MAX_GUIDE_NOISE = 0.5
"""Largest share of a language's guide prompts that may be noise."""
_MIN_TRIED = 3
"""With fewer values tried, each is at an edge."""
_LOWEST_POSSIBLE = {"min_samples": 1, "min_cluster_size": 2, "n_clusters": 2}
"""An edge at such a value is none: nothing lower can be tried."""


@dataclass(frozen=True)
class Degeneracy:
    """One finding, with its numbers, and what to try."""

    found: str
    remedy: str


def effective_clusters(sizes: npt.ArrayLike) -> float:
    """Effective number of clusters: exp of the entropy of the assigned rows' distribution; 0 if no row is assigned.

    `sizes` is int[K] without noise. K equal clusters give K.

    >>> effective_clusters([5, 5, 5, 5]), effective_clusters([98, 1, 1]) < 1.2, effective_clusters([0])
    (4.0, True, 0.0)
    """
    counts = as_counts(sizes, "sizes")
    if not counts.any():
        return 0.0
    shares = probabilities(counts[counts > 0])
    return round(float(np.exp(-(shares * np.log(shares)).sum())), 12)


def largest_share(sizes: npt.ArrayLike) -> float:
    """Share of the largest cluster in the assigned rows, for sizes int[K] without noise; 0 if no row is assigned.

    >>> largest_share([3, 1])
    0.75
    """
    counts = as_counts(sizes, "sizes")
    return float(counts.max() / counts.sum()) if counts.any() else 0.0


def find_degeneracies(
    sizes: npt.ArrayLike,
    guide_counts: Mapping[str, IntArray] | None = None,
    tried: Sequence[Mapping[str, object]] = (),
    chosen: Mapping[str, object] | None = None,
) -> list[Degeneracy]:
    """What is degenerate in a clustering; empty if nothing is.

    Args:
        sizes: int[K], rows of each cluster without noise.
        guide_counts: int[K + 1] of each language, its guide prompts by cluster, noise last.
        tried: parameters of every setting of the sweep.
        chosen: parameters of the setting that was taken.

    >>> [each.found for each in find_degeneracies([98, 2])]
    ['one of 2 clusters holds 98% of the assigned rows', 'the 2 clusters are as informative as 1.1 of equal size']
    """
    return [
        *_uneven_sizes(as_counts(sizes, "sizes")),
        *_grid_edges(tried, chosen or {}),
        *_noisy_guides(guide_counts or {}),
    ]


def _uneven_sizes(sizes: IntArray) -> Iterator[Degeneracy]:
    remedy = "set cluster.method=kmeans with larger cluster.n_clusters, or check the encoder and embed.prompt_prefix"
    largest, effective = largest_share(sizes), effective_clusters(sizes)
    if largest > MAX_LARGEST_SHARE:
        yield Degeneracy(f"one of {len(sizes)} clusters holds {largest:.0%} of the assigned rows", remedy)
    if effective < MIN_EFFECTIVE_CLUSTERS:
        yield Degeneracy(f"the {len(sizes)} clusters are as informative as {effective:.1f} of equal size", remedy)


def _grid_edges(tried: Sequence[Mapping[str, object]], chosen: Mapping[str, object]) -> Iterator[Degeneracy]:
    """Parameters whose chosen value is the lowest or highest of three or more that were tried."""
    for name, value in chosen.items():
        values = sorted({float(each[name]) for each in tried if isinstance(each.get(name), Real)})  # type: ignore[arg-type]
        if len(values) >= _MIN_TRIED and value in (values[0], values[-1]) and value != _LOWEST_POSSIBLE.get(name):
            edge = "lowest" if value == values[0] else "highest"
            yield Degeneracy(
                f"the sweep chose {name} {value}, the {edge} of {len(values)} values that it tried",
                f"try values beyond {value} too, or fix the value that you want",
            )


def _noisy_guides(guide_counts: Mapping[str, IntArray]) -> Iterator[Degeneracy]:
    for language, counts in guide_counts.items():
        if np.any(counts) and (share := noise_share(counts)) > MAX_GUIDE_NOISE:
            yield Degeneracy(
                f"{share:.0%} of the guide prompts of {language} are noise and have no influence on the selection",
                "set cluster.method=kmeans, which has no noise, or check the guide set and the encoder",
            )
