"""Stale clusters: bounds, one report per period, and checks that depend on their arguments only."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.drift import ClusterFit, StalenessBounds, StalenessCheck, StalenessState, check_staleness

GUIDE, FITS, NOISY, FAR = ClusterFit(0.1, 0.2), ClusterFit(0.3, 0.25), ClusterFit(0.5, 0.2), ClusterFit(0.1, 0.4)
fits = st.builds(ClusterFit, st.floats(0, 1), st.none() | st.floats(0, 2))
bounds = st.builds(StalenessBounds, st.floats(0, 1), st.floats(1, 5), st.integers(1, 4))


def walk(guide: ClusterFit, windows: list[ClusterFit], limits: StalenessBounds) -> list[StalenessCheck]:
    state, found = StalenessState(), []
    for window in windows:
        found.append(check_staleness(state, guide, window, limits))
        state = found[-1].after
    return found


def test_consecutive_checks_are_needed_and_staleness_is_reported_once_per_period() -> None:
    checks = walk(GUIDE, [NOISY, FITS, NOISY, FAR, NOISY, FITS, FAR, FAR], StalenessBounds())
    assert [check.became_stale for check in checks] == [False, False, False, True, False, False, False, True]
    assert [check.after.stale for check in checks] == [False, False, False, True, True, False, False, True]


@pytest.mark.parametrize(
    ("window", "beyond"),
    [
        (ClusterFit(0.39, 0.29), ()),
        (NOISY, ("noise",)),
        (FAR, ("distance",)),
        (ClusterFit(1.0, 1.0), ("noise", "distance")),
        (ClusterFit(0.1), ()),
    ],
)
def test_each_bound_is_named(window: ClusterFit, beyond: tuple[str, ...]) -> None:
    assert check_staleness(StalenessState(), GUIDE, window, StalenessBounds()).beyond == beyond


def test_a_guide_set_without_a_distance_is_compared_by_noise_alone() -> None:
    for unknown in (ClusterFit(0.1), ClusterFit(0.1, 0.0)):
        assert check_staleness(StalenessState(), unknown, ClusterFit(0.1, 2.0), StalenessBounds()).beyond == ()
        assert check_staleness(StalenessState(), unknown, ClusterFit(0.9, 2.0), StalenessBounds()).beyond == ("noise",)


@given(fits, st.lists(fits, max_size=30), bounds)
def test_each_period_is_reported_at_the_check_that_reaches_persistence(
    guide: ClusterFit, windows: list[ClusterFit], limits: StalenessBounds
) -> None:
    checks = walk(guide, windows, limits)
    said: list[bool] = []
    for beyond, spell in groupby(bool(check.beyond) for check in checks):
        length = len(list(spell))
        said += [beyond and place == limits.persistence for place in range(1, length + 1)]
    assert [check.became_stale for check in checks] == said


@given(fits, fits, bounds, st.floats(0, 1), st.floats(0, 2))
def test_a_worse_fit_exceeds_no_fewer_bounds(
    guide: ClusterFit, window: ClusterFit, limits: StalenessBounds, noise: float, far: float
) -> None:
    worse = ClusterFit(max(noise, window.noise), None if window.distance is None else max(far, window.distance))
    assert {*check_staleness(StalenessState(), guide, window, limits).beyond} <= {
        *check_staleness(StalenessState(), guide, worse, limits).beyond
    }


@given(fits, bounds)
def test_the_guide_set_itself_never_exceeds_a_bound(guide: ClusterFit, limits: StalenessBounds) -> None:
    assert check_staleness(StalenessState(), guide, guide, limits).beyond == ()


@given(fits, fits, bounds, st.builds(StalenessState, st.integers(0, 3), st.booleans()))
def test_a_recorded_check_gives_the_same_result_again(
    guide: ClusterFit, window: ClusterFit, limits: StalenessBounds, before: StalenessState
) -> None:
    found = check_staleness(before, guide, window, limits)
    told = asdict(found)
    again = check_staleness(
        StalenessState(**told["before"]),
        ClusterFit(**told["guide"]),
        ClusterFit(**told["window"]),
        StalenessBounds(**told["bounds"]),
    )
    assert again == found


@pytest.mark.parametrize(("noise", "distance"), [(1.1, None), (-0.1, None), (float("nan"), None), (0.1, -0.1), (0.1, 2.1)])
def test_invalid_shares_and_distances_are_refused(noise: float, distance: float | None) -> None:
    with pytest.raises(ValueError, match="expected"):
        ClusterFit(noise, distance)


def test_a_persistence_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="persistence is 0"):
        StalenessBounds(persistence=0)
