"""The gate: a version is served only if it is better on the window and did not forget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.adapters.dora import attach_for_inference
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.config import AdapterConfig
from compass_ray.continual.update.gate import GateResult, LossComparison, compare_adapters
from compass_ray.core.bootstrap import Interval, paired_bootstrap
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample, TrainingRow, encode_rows
from tests.unit.random_adapters import random_adapter
from tests.unit.tiny_models import base, make_base, tokenizer

__all__ = ["base", "make_base", "tokenizer"]

_losses = st.floats(0, 20)
_pairs = st.tuples(_losses, _losses)
_SURE = Interval(0.5, 0.25, 0.75)
_CHANCE = Interval(0.5, -0.25, 1.25)


def _measured(pair: tuple[float, float], change: Interval = _SURE) -> LossComparison:
    return LossComparison(*pair, 5, change)


def _gate(window: tuple[float, float], bound: float = 0.1, **retention: tuple[float, float]) -> GateResult:
    return GateResult(_measured(window), {name: _measured(pair) for name, pair in retention.items()}, bound)


@given(_pairs, _pairs, _pairs, st.floats(0, 1))
def test_accepted_means_better_on_the_window_and_not_much_worse_elsewhere(
    window: tuple[float, float], anchors: tuple[float, float], retained: tuple[float, float], bound: float
) -> None:
    gate = _gate(window, bound, anchors=anchors, retained=retained)
    retained_all = all(after - before <= bound for before, after in (anchors, retained))
    assert gate.accepted == (window[1] < window[0] and retained_all)
    assert gate.reason.startswith("accepted" if gate.accepted else "rejected")


_changes = st.tuples(st.floats(-2, 2), st.floats(0.001, 1), st.floats(0.001, 1)).map(
    lambda each: Interval(each[0], each[0] - each[1], each[0] + each[2])
)


@given(_changes, _changes, st.floats(0.01, 0.99))
def test_with_a_share_of_earlier_traffic_the_mix_decides(window: Interval, retained: Interval, share: float) -> None:
    """Forgetting that the window outweighs is accepted, and a gain on the window that it does not outweigh is not."""
    sets = {"retained": LossComparison(1.0, 1.0 + retained.mean, 5, retained)}
    gate = GateResult(LossComparison(2.0, 2.0 + window.mean, 5, window), sets, 0.0, share)
    change = gate.mix_change
    assert change is not None
    assert change.mean == pytest.approx((1 - share) * window.mean + share * retained.mean)
    assert gate.accepted == (change.high < 0)
    assert change.high - change.mean <= (1 - share) * (window.high - window.mean) + share * (retained.high - retained.mean) + 1e-9
    assert f"with {share:.0%} earlier traffic" in gate.reason
    assert gate.record("v0001").mix_change == change


def test_the_interval_of_the_mix_is_that_of_independent_rows() -> None:
    rng = np.random.default_rng(0)
    window, retained = rng.normal(-0.3, 0.5, 400), rng.normal(0.1, 0.2, 100)
    parts = [paired_bootstrap(each, np.zeros(len(each)), rng=rng) for each in (window, retained)]
    sets = {"retained": LossComparison(1.0, 1.1, 100, parts[1])}
    found = GateResult(LossComparison(2.0, 1.7, 400, parts[0]), sets, 0.1, 0.4).mix_change
    assert found is not None
    error = ((0.6**2) * window.var() / 400 + (0.4**2) * retained.var() / 100) ** 0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_a_mix_without_earlier_rows_is_rejected() -> None:
    gate = GateResult(_measured((2.0, 1.0), Interval(-1.0, -1.1, -0.9)), {}, 0.1, 0.5)
    assert gate.reason.startswith("rejected, not better on the mix: fewer than 5 held-out rows of earlier versions")
    assert gate.record("v0001").mix_change is None


def test_corrections_keep_their_limit_in_a_mix() -> None:
    gain, sets = Interval(-1.0, -1.1, -0.9), {"retained": _measured((1.0, 1.0), Interval(0.0, -0.1, 0.1))}
    worse = {**sets, "corrections": _measured((1.0, 2.0))}
    assert GateResult(_measured((2.0, 1.0), gain), sets, 0.1, 0.5).accepted
    assert GateResult(_measured((2.0, 1.0), gain), worse, 0.1, 0.5).forgotten == ["corrections"]


def test_a_visible_rise_is_2_8_standard_errors() -> None:
    rng, rows, deviation = np.random.default_rng(0), 60, 0.4
    noise = rng.normal(0.0, deviation, rows)
    shown = LossComparison(1.0, 1.0, rows, paired_bootstrap(noise, np.zeros(rows), rng=rng)).visible_rise
    error = deviation / rows**0.5
    assert shown == pytest.approx(2.8 * error, rel=0.2)


def test_too_few_rows_to_see_the_limit_are_told() -> None:
    gate = GateResult(_measured((2.0, 1.5)), {"retained": _measured((1.0, 1.0), Interval(0.0, -0.5, 0.5))}, 0.1)
    advice = "more than the limit of 0.1; a first version with a larger train.holdout has more"
    assert gate.reason.endswith(f"is seen with probability 0.8, {advice}")
    few = LossComparison(1.0, 1.0, 1, Interval(0.0, 0.0, 0.0))
    lone = GateResult(_measured((2.0, 1.5)), {"retained": few}, 0.1)
    assert lone.reason.endswith(f"; retained has too few rows (1) to see a rise, {advice}")
    assert not GateResult(_measured((2.0, 1.0), Interval(-1.0, -1.1, -0.9)), {"retained": few}, 0.1, 0.5).accepted
    sure = GateResult(_measured((2.0, 1.5)), {"retained": _measured((1.0, 1.0), Interval(0.0, -0.01, 0.01))}, 0.1)
    assert sure.reason.endswith("; a rise of 0.014 on retained is seen with probability 0.8")


def test_an_increase_that_may_be_chance_does_not_count_as_forgetting() -> None:
    for change, accepted in ((_SURE, False), (_CHANCE, True)):
        gate = GateResult(_measured((2.0, 1.5), _CHANCE), {"retained": _measured((1.0, 1.5), change)}, 0.1)
        assert gate.accepted == accepted


@given(_losses, _losses)
def test_an_update_that_changes_nothing_is_rejected(window: float, anchors: float) -> None:
    assert not _gate((window, window), anchors=(anchors, anchors)).accepted


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        (
            _gate((2.0, 1.5), anchors=(1.0, 1.0625), retained=(3.0, 3.0)),
            "accepted: loss on the window 2.000 -> 1.500 (+0.250 to +0.750), on anchors 1.000 -> 1.062 (+0.250 to +0.750), "
            "on retained 3.000 -> 3.000",
        ),
        (_gate((1.5, 2.0), anchors=(1.0, 0.5)), "rejected, not better on the window: loss on the window 1.500 -> 2.000"),
        (_gate((2.0, 1.5), anchors=(1.0, 1.5)), "rejected, forgets more than 0.1 nats on anchors: loss on the window 2.000"),
        (
            _gate((2.0, 1.5), anchors=(1.0, 1.0), retained=(1.0, 1.5), corrections=(1.0, 2.0)),
            "rejected, forgets more than 0.1 nats on retained, corrections: ",
        ),
        (_gate((2.0, float("nan"))), "rejected, not better"),
        (
            GateResult(_measured((2.0, 1.5)), {"anchors": _measured((1.0, float("nan")), Interval(*[float("nan")] * 3))}, 0.1),
            "rejected, forgets",
        ),
    ],
)
def test_the_reason_gives_the_numbers(gate: GateResult, reason: str) -> None:
    assert gate.reason.startswith(reason)


def test_all_losses_are_recorded() -> None:
    gate = _gate((2.0, 1.5), anchors=(1.0, 1.25))
    change = {"mean": 0.5, "low": 0.25, "high": 0.75}
    assert gate.record("v0001").to_json() == {
        "window_before": 2.0,
        "window_after": 1.5,
        "window_rows": 5,
        "window_change": change,
        "anchors_before": 1.0,
        "anchors_after": 1.25,
        "anchors_rows": 5,
        "anchors_change": change,
        "max_forgetting": 0.1,
        "accepted": False,
        "reason": gate.reason,
        "from": "v0001",
    }


def _loss(base: BaseModel, folder: Path, example: EncodedExample) -> float:
    """By the model's own loss, one row at a time."""
    ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
    with attach_for_inference(base.model, read_adapter(folder)), torch.inference_mode():
        return float(base.model(ids, labels=labels).loss)


def test_versions_are_measured_row_by_row_and_weighted(base: BaseModel, tmp_path: Path) -> None:
    shape = AdapterConfig(r=2, alpha=4, target_modules=("q_proj",))
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = (random_adapter(base, tmp_path / name, shape, seed=seed) for name, seed in (("old", 1), ("new", 2)))
    rows = [TrainingRow("Which? " + "please " * (5 - i), f"{i} yes", weight=1.0 + i) for i in range(6)]
    window, anchors = encode_rows(base.tokenizer, rows[:4], 64), encode_rows(base.tokenizer, rows[4:], 64)
    gate = compare_adapters(
        base, old, new, window, {"anchors": anchors, "corrections": []}, max_forgetting=1.0, rng=np.random.default_rng(0)
    )
    weights = np.array([row.weight for row in rows])
    for found, part, weight in ((gate.window, window, weights[:4]), (gate.retention["anchors"], anchors, weights[4:])):
        before, after = (np.array([_loss(base, folder, example) for example in part]) for folder in (old, new))
        assert (found.before, found.after) == pytest.approx(
            (before @ weight / weight.sum(), after @ weight / weight.sum()), rel=1e-5
        )
        assert found.rows == len(part)
    assert gate.retention.keys() == {"anchors"}
    assert gate.window.change.mean == pytest.approx(gate.window.after - gate.window.before)
    assert gate.window.change.low <= gate.window.change.mean <= gate.window.change.high
