"""Staleness of clusters: whether many prompts of a window are noise or far from their centroids in consecutive checks.

A pure function of the fit of guide prompts, the fit of a window and the previous state. Clusters become stale once, until
they fit again. Both bounds are effect sizes and not significance tests, because only a large misfit is a reason to re-cluster.
COMPASS, section 3.3.1 does not say when to re-cluster.
"""

from dataclasses import dataclass

from compass_ray.core.array_checks import check_fraction


@dataclass(frozen=True)
class ClusterFit:
    """Fit of prompts to clusters: share of noise, and mean of `centroids.centroid_distances`; None if unknown."""

    noise: float
    distance: float | None = None

    def __post_init__(self) -> None:
        """ValueError on an invalid share or distance."""
        check_fraction(self.noise, "noise")
        if self.distance is not None and not 0.0 <= self.distance <= 2.0:
            raise ValueError(f"distance is {self.distance}; expected one minus a cosine, 0 to 2.")


@dataclass(frozen=True)
class StalenessBounds:
    """Bounds: excess of the noise share over the guide prompts', ratio of distances, and consecutive checks."""

    noise: float = 0.3
    distance: float = 1.5
    persistence: int = 2

    def __post_init__(self) -> None:
        """ValueError on fewer than one check."""
        if self.persistence < 1:
            raise ValueError(f"persistence is {self.persistence}; expected 1 or more checks.")


@dataclass(frozen=True)
class StalenessState:
    """State between checks: consecutive checks beyond a bound, and whether the clusters are stale."""

    streak: int = 0
    stale: bool = False


@dataclass(frozen=True)
class StalenessCheck:
    """One check with its inputs: the fit of both sides, the bounds, and the state `before` it.

    `beyond` names the exceeded bounds; `after` is the state for the next check.
    """

    guide: ClusterFit
    window: ClusterFit
    bounds: StalenessBounds
    before: StalenessState
    beyond: tuple[str, ...]
    after: StalenessState

    @property
    def became_stale(self) -> bool:
        """Whether the clusters became stale in this check."""
        return self.after.stale and not self.before.stale


def check_staleness(before: StalenessState, guide: ClusterFit, window: ClusterFit, bounds: StalenessBounds) -> StalenessCheck:
    """Check whether clusters are stale for `window`, compared with `guide`; by noise alone if a distance is missing.

    >>> found = check_staleness(StalenessState(streak=1), ClusterFit(0.1, 0.2), ClusterFit(0.5, 0.25), StalenessBounds())
    >>> found.beyond, found.after, found.became_stale
    (('noise',), StalenessState(streak=2, stale=True), True)
    """
    noisy = window.noise - guide.noise > bounds.noise
    far = bool(guide.distance and window.distance and window.distance > bounds.distance * guide.distance)
    beyond = tuple(name for name, is_beyond in (("noise", noisy), ("distance", far)) if is_beyond)
    streak = min(before.streak + 1, bounds.persistence) if beyond else 0
    return StalenessCheck(guide, window, bounds, before, beyond, StalenessState(streak, stale=streak == bounds.persistence))
