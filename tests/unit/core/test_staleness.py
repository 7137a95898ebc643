"""Stale clusters: when they are, that it is said once, and that a check rests on nothing but what it is given."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.drift import Aged, Bounds, Fit, Staleness, check_fit

GUIDE, FITS, NOISY, FAR = Fit(0.1, 0.2), Fit(0.3, 0.25), Fit(0.5, 0.2), Fit(0.1, 0.4)
fits = st.builds(Fit, st.floats(0, 1), st.none() | st.floats(0, 2))
bounds = st.builds(Bounds, st.floats(0, 1), st.floats(1, 5), st.integers(1, 4))


def walk(guide: Fit, windows: list[Fit], limits: Bounds) -> list[Aged]:
    state, found = Staleness(), []
    for window in windows:
        found.append(check_fit(state, guide, window, limits))
        state = found[-1].after
    return found


def test_it_takes_checks_in_a_row_and_is_said_once_until_it_fits_again() -> None:
    checks = walk(GUIDE, [NOISY, FITS, NOISY, FAR, NOISY, FITS, FAR, FAR], Bounds())
    assert [check.begun for check in checks] == [False, False, False, True, False, False, False, True]
    assert [check.after.stale for check in checks] == [False, False, False, True, True, False, False, True]


@pytest.mark.parametrize(
    ("window", "beyond"),
    [(Fit(0.39, 0.29), ()), (NOISY, ("noise",)), (FAR, ("distance",)), (Fit(1.0, 1.0), ("noise", "distance")), (Fit(0.1), ())],
)
def test_each_bound_is_named(window: Fit, beyond: tuple[str, ...]) -> None:
    assert check_fit(Staleness(), GUIDE, window, Bounds()).beyond == beyond


def test_a_guide_set_without_a_distance_is_compared_by_noise_alone() -> None:
    for unknown in (Fit(0.1), Fit(0.1, 0.0)):
        assert check_fit(Staleness(), unknown, Fit(0.1, 2.0), Bounds()).beyond == ()
        assert check_fit(Staleness(), unknown, Fit(0.9, 2.0), Bounds()).beyond == ("noise",)


@given(fits, st.lists(fits, max_size=30), bounds)
def test_each_spell_is_said_at_the_check_that_makes_it_long_enough(guide: Fit, windows: list[Fit], limits: Bounds) -> None:
    checks = walk(guide, windows, limits)
    said: list[bool] = []
    for beyond, spell in groupby(bool(check.beyond) for check in checks):
        length = len(list(spell))
        said += [beyond and place == limits.persistence for place in range(1, length + 1)]
    assert [check.begun for check in checks] == said


@given(fits, fits, bounds, st.floats(0, 1), st.floats(0, 2))
def test_what_fits_worse_is_beyond_no_fewer_bounds(guide: Fit, window: Fit, limits: Bounds, noise: float, far: float) -> None:
    worse = Fit(max(noise, window.noise), None if window.distance is None else max(far, window.distance))
    assert {*check_fit(Staleness(), guide, window, limits).beyond} <= {*check_fit(Staleness(), guide, worse, limits).beyond}


@given(fits, bounds)
def test_the_guide_set_itself_is_never_beyond(guide: Fit, limits: Bounds) -> None:
    assert check_fit(Staleness(), guide, guide, limits).beyond == ()


@given(fits, fits, bounds, st.builds(Staleness, st.integers(0, 3), st.booleans()))
def test_from_its_record_it_comes_to_the_same(guide: Fit, window: Fit, limits: Bounds, before: Staleness) -> None:
    found = check_fit(before, guide, window, limits)
    told = asdict(found)
    again = check_fit(Staleness(**told["before"]), Fit(**told["guide"]), Fit(**told["window"]), Bounds(**told["bounds"]))
    assert again == found


@pytest.mark.parametrize(("noise", "distance"), [(1.1, None), (-0.1, None), (float("nan"), None), (0.1, -0.1), (0.1, 2.1)])
def test_what_is_no_share_or_no_distance_is_refused(noise: float, distance: float | None) -> None:
    with pytest.raises(ValueError, match="expected"):
        Fit(noise, distance)


def test_bounds_that_no_check_could_pass_are_refused() -> None:
    with pytest.raises(ValueError, match="persistence is 0"):
        Bounds(persistence=0)
