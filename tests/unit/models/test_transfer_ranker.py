"""The ranker of transfer languages: what it learns, that it is deterministic, and the errors for missing requirements."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compass_ray.config import ConfigError, SelectConfig
from compass_ray.core.baselines.transfer_ranking import MEASURED
from compass_ray.models.errors import ModelError
from compass_ray.models.transfer_ranker import MIN_TRANSFERS, TransferRanker, check_method_requirements


def made_up(n_targets: int = 9, n_transfers: int = 11) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Gains that follow the second feature, apart from how well the target does at all."""
    rng = np.random.default_rng(0)
    targets = [f"t{i}" for i in range(n_targets) for _ in range(n_transfers)]
    features = rng.random((len(targets), 4))
    return targets, features, np.repeat(rng.normal(size=n_targets), n_transfers) - features[:, 1]


def test_it_learns_the_ranking_within_a_target() -> None:
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


def test_a_missing_package_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "lightgbm" else found(name, *a))
    settings: dict[str, Any] = {"methods": ("langrank", "compass")}
    with pytest.raises(ModelError, match=r"compass-ray\[baselines\]"):
        check_method_requirements(SelectConfig(**settings), ["sw"])
    check_method_requirements(SelectConfig(), ["sw"])
    with pytest.raises(ModelError, match="lightgbm"):
        TransferRanker(*made_up())


def asks(folder: Path, pairs: list[tuple[str, str]]) -> SelectConfig:
    rows = [{"target": to, "transfer": by, "gain": i} | dict.fromkeys(MEASURED, 0.5) for i, (to, by) in enumerate(pairs)]
    path = folder / "mine.json"
    path.write_text(json.dumps(rows))
    return SelectConfig.model_validate({"methods": ["langrank"], "transfer": {"results": str(path)}})


def pairs(target: str, count: int) -> list[tuple[str, str]]:
    return [(target, code) for code in ("en", "fr", "ru", "ja", "zh", "es", "pt", "de", "hi", "id", "tr")[:count]]


@pytest.mark.parametrize(
    ("table", "usable"),
    [
        ([*pairs("sw", 10), ("yo", "en")], 0),
        ([*pairs("sw", 10), *pairs("yo", 10)], 10),
        ([*pairs("swh", 10), *pairs("yo", 9)], 9),
        ([*pairs("yo", 9), ("yo", "sw"), ("yo", "swa"), ("ko", "en")], 9),
        ([(code, "en") for code in ("sw", "yo", "fr", "ru", "ja", "zh", "es", "pt", "de", "hi", "id", "ko")], 0),
    ],
    ids=["one other target", "too few", "by another code", "as a transfer language", "nothing to compare"],
)
def test_too_few_transfers_without_a_target_are_rejected_early(tmp_path: Path, table: list[tuple[str, str]], usable: int) -> None:
    config = asks(tmp_path, table)
    with pytest.raises(
        ConfigError, match=rf"langrank: {usable} of the \d+ .* a ranking for sw .*expected at least {MIN_TRANSFERS}"
    ):
        check_method_requirements(config, ["sw"])


def test_every_target_of_a_run_is_checked(tmp_path: Path) -> None:
    config = asks(tmp_path, [*pairs("sw", MIN_TRANSFERS), ("yo", "en")])
    check_method_requirements(config, ["ko", "yo"])
    with pytest.raises(ConfigError, match="a ranking for sw"):
        check_method_requirements(config, ["ko", "yo", "sw"])


def test_as_many_transfers_as_a_tree_can_split_are_enough(tmp_path: Path) -> None:
    check_method_requirements(asks(tmp_path, [*pairs("sw", 1), *pairs("yo", MIN_TRANSFERS)]), ["sw", "am"])
    check_method_requirements(SelectConfig.model_validate({"methods": ["langrank"]}), ["sw", "es", "uk", "yo"])
    _, features, _ = made_up(1, MIN_TRANSFERS)
    scores = TransferRanker(["yo"] * MIN_TRANSFERS, features, features[:, 1]).scores(features)
    assert len(set(scores.tolist())) > 1
    fewer = features[: MIN_TRANSFERS - 1]
    assert len(set(TransferRanker(["yo"] * len(fewer), fewer, fewer[:, 1]).scores(features).tolist())) == 1
