"""The ranker of transfer languages: what it learns, that it repeats itself, and what is said where it is missing."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from compass_ray.config import SelectConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.ranker import TransferRanker, require_methods


def made_up(n_targets: int = 9, n_transfers: int = 11) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Gains that follow the second feature, apart from how well the target does at all."""
    rng = np.random.default_rng(0)
    targets = [f"t{i}" for i in range(n_targets) for _ in range(n_transfers)]
    features = rng.random((len(targets), 4))
    return targets, features, np.repeat(rng.normal(size=n_targets), n_transfers) - features[:, 1]


def test_it_learns_what_helps_within_a_target() -> None:
    targets, features, gains = made_up()
    asked = np.full((5, 4), 0.5)
    asked[:, 1] = [0.9, 0.1, 0.5, 0.3, 0.7]
    assert int(np.argmax(TransferRanker(targets, features, gains).scores(asked))) == 1


def test_order_of_the_table_and_repetition_change_nothing() -> None:
    targets, features, gains = made_up()
    order = np.argsort(targets, kind="stable")[::-1].reshape(9, 11)[:, ::-1].ravel()
    first = TransferRanker(targets, features, gains).scores(features)
    again = TransferRanker(targets, features, gains).scores(features)
    moved = TransferRanker([targets[i] for i in order], features[order], gains[order]).scores(features)
    assert first.tolist() == again.tolist() == moved.tolist()


def test_a_missing_package_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "lightgbm" else found(name, *a))
    settings: dict[str, Any] = {"methods": ("langrank", "compass")}
    with pytest.raises(ModelError, match=r"compass-ray\[baselines\]"):
        require_methods(SelectConfig(**settings))
    require_methods(SelectConfig())
    with pytest.raises(ModelError, match="lightgbm"):
        TransferRanker(*made_up())
