"""The gate: a version is served only if it is better on the window and has not forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.continual.gate import Gate

_losses = st.floats(0, 20)


@given(_losses, _losses, _losses, _losses, st.floats(0, 1))
def test_accepted_means_better_there_and_not_much_worse_here(
    window_before: float, window_after: float, anchors_before: float, anchors_after: float, bound: float
) -> None:
    gate = Gate(window_before, window_after, anchors_before, anchors_after, bound)
    assert gate.accepted == (window_after < window_before and anchors_after - anchors_before <= bound)
    assert gate.reason.startswith("accepted" if gate.accepted else "refused")


@given(_losses, _losses)
def test_what_changed_nothing_is_refused(window: float, anchors: float) -> None:
    assert not Gate(window, window, anchors, anchors, 0.1).accepted


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (Gate(2.0, 1.5, 1.0, 1.0625, 0.1), "accepted: loss on the window 2.000 -> 1.500, on anchors 1.000 -> 1.062"),
        (Gate(1.5, 2.0, 1.0, 0.5, 0.1), "refused, no better on the window: loss on the window 1.500 -> 2.000"),
        (Gate(2.0, 1.5, 1.0, 1.5, 0.1), "refused, forgets more than 0.1 nats: .*on anchors 1.000 -> 1.500"),
        (Gate(2.0, float("nan"), 1.0, 1.0, 0.1), "refused"),
        (Gate(2.0, 1.5, 1.0, float("nan"), 0.1), "refused, forgets"),
    ],
)
def test_the_reason_gives_the_numbers(gate: Gate, told: str) -> None:
    import re

    assert re.match(told, gate.reason)
