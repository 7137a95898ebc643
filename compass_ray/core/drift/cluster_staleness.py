"""Whether clusters still fit the prompts: many lie in none of them, or far from their centroids, check after check.

Key property: a pure function of how guide prompts and a window fit, and of what the check before left; what has become stale is
said once, until it fits again. Both bounds are sizes and no tests, since either is a reason to cluster anew only where it is
large. COMPASS, section 3.3.1, leaves open when to. It clusters nothing.
"""

from dataclasses import dataclass

from compass_ray.core.array_checks import check_fraction


@dataclass(frozen=True)
class ClusterFit:
    """How prompts fit clusters: share that is noise, and mean of `centroids.centroid_distances`, None where unknown."""

    noise: float
    distance: float | None = None

    def __post_init__(self) -> None:
        """ValueError on what is no share, or no distance."""
        check_fraction(self.noise, "noise")
        if self.distance is not None and not 0.0 <= self.distance <= 2.0:
            raise ValueError(f"distance is {self.distance}; expected one minus a cosine, 0 to 2.")


@dataclass(frozen=True)
class StalenessBounds:
    """How much more noise than the guide prompts, and how many times their distance, is too much; checks in a row."""

    noise: float = 0.3
    distance: float = 1.5
    persistence: int = 2

    def __post_init__(self) -> None:
        """ValueError where no check could ever be the one to say it."""
        if self.persistence < 1:
            raise ValueError(f"persistence is {self.persistence}; expected 1 or more checks.")


@dataclass(frozen=True)
class StalenessState:
    """What is remembered: checks in a row beyond a bound, and whether they were enough."""

    streak: int = 0
    stale: bool = False


@dataclass(frozen=True)
class StalenessCheck:
    """One check, with all that it rests on: how both sides fit, the bounds, and the state `before` it.

    `beyond` names the bounds that the window is beyond; `after` is the state to hand to the next check.
    """

    guide: ClusterFit
    window: ClusterFit
    bounds: StalenessBounds
    before: StalenessState
    beyond: tuple[str, ...]
    after: StalenessState

    @property
    def became_stale(self) -> bool:
        """Whether the clusters have become stale with this check."""
        return self.after.stale and not self.before.stale


def check_staleness(before: StalenessState, guide: ClusterFit, window: ClusterFit, bounds: StalenessBounds) -> StalenessCheck:
    """Whether clusters that fit `guide` are stale for `window`; without a distance on either side, by noise alone.

    >>> found = check_staleness(StalenessState(streak=1), ClusterFit(0.1, 0.2), ClusterFit(0.5, 0.25), StalenessBounds())
    >>> found.beyond, found.after, found.became_stale
    (('noise',), StalenessState(streak=2, stale=True), True)
    """
    noisy = window.noise - guide.noise > bounds.noise
    far = bool(guide.distance and window.distance and window.distance > bounds.distance * guide.distance)
    beyond = tuple(name for name, is_beyond in (("noise", noisy), ("distance", far)) if is_beyond)
    streak = min(before.streak + 1, bounds.persistence) if beyond else 0
    return StalenessCheck(guide, window, bounds, before, beyond, StalenessState(streak, stale=streak == bounds.persistence))
