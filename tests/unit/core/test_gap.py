"""The gap before and after a selection, noise included."""

import pytest

from compass_ray.core.distribution import js_divergence
from compass_ray.core.gap import measure_gap


def test_before_and_after_are_measured_from_the_guide_set() -> None:
    gap = measure_gap([5, 5, 2], [8, 0, 1], [0, 6, 0])
    assert gap.js_before == pytest.approx(js_divergence([5, 5, 2], [8, 0, 1]))
    assert gap.js_after == pytest.approx(js_divergence([5, 5, 2], [8, 6, 1]))
    assert gap.p_after == pytest.approx([8 / 15, 6 / 15, 1 / 15])


def test_a_language_without_rows_covers_nothing() -> None:
    gap = measure_gap([1, 1, 0], [0, 0, 0], [0, 0, 0])
    assert gap.js_before == gap.js_after == 1.0
    assert not gap.p_before.any()


def test_an_empty_guide_set_is_refused() -> None:
    with pytest.raises(ValueError, match="all counts are zero"):
        measure_gap([0, 0], [1, 1], [0, 0])
