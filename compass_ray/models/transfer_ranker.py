"""A ranker of transfer languages: gradient-boosted trees under LambdaRank (Lin et al. 2019; COMPASS, section 4.3).

Key property: learned from measured transfers, each target a group of its own, and the same on every machine: one thread,
no sampling. Needs lightgbm, which the extra `baselines` brings. The language that it is asked about is in nothing that it
learned from, neither as a target nor as a transfer language (`without_target`).
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compass_ray.config import ConfigError, SelectConfig
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.baselines.transfer_ranking import GRADES, grade_gains
from compass_ray.models.errors import ModelError
from compass_ray.sources.typology import Transfers, read_transfers

_SETTINGS: dict[str, Any] = {
    "n_estimators": 100,
    "num_leaves": 16,
    "learning_rate": 0.1,
    "min_child_samples": 5,
    "label_gain": [2**grade - 1 for grade in range(GRADES + 1)],
    "deterministic": True,
    "force_row_wise": True,
    "n_jobs": 1,
    "random_state": 0,
    "verbose": -1,
}

MIN_TRANSFERS = 2 * int(_SETTINGS["min_child_samples"]) + 1
"""Transfers that a ranking is learned from at the least: with fewer no tree was seen to split, so all languages score alike."""


def check_method_requirements(config: SelectConfig, targets: Sequence[str]) -> None:
    """Say before any work what a method lacks for the target languages.

    Raises:
        ConfigError: the table of transfers that langrank learns from cannot be used, or has too few without a target.
        ModelError: langrank without lightgbm, with how to install it.
    """
    if "langrank" in config.methods:
        _require_lightgbm()
        table = read_transfers(config.transfer.results)
        for target in targets:
            exclude_target(table, target)


def exclude_target(table: Transfers, target: str) -> Transfers:
    """The transfers that a ranking for one target is learned from: those between other languages.

    Raises:
        ConfigError: fewer than `LEAST` of them can be compared, as transfers to the same target can.
    """
    learned = table.without(target)
    compared = sum(count for count in Counter(learned.target).values() if count > 1)
    if compared < MIN_TRANSFERS:
        raise ConfigError(
            f"langrank: of the {len(table.gain)} transfers of {table.source}, {compared} are left to learn a ranking for "
            f"{target} from: those neither to nor from it, to targets with two or more; expected {MIN_TRANSFERS} or more. "
            f"Add such transfers to select.transfer.results, or leave langrank out of select.methods"
        )
    return learned


def _require_lightgbm() -> None:
    if importlib.util.find_spec("lightgbm") is None:
        raise ModelError(
            "select.methods has langrank, which needs lightgbm, and that is not installed: "
            "pip install 'compass-ray[baselines]', or leave langrank out"
        )


class TransferRanker:
    """Scores transfer languages of a target, the higher the better; scores of different targets do not compare."""

    def __init__(self, targets: Sequence[str], features: npt.ArrayLike, gains: npt.ArrayLike) -> None:
        """Learn from the gain of each measured transfer: `features` (n, d), NaN where unknown, and `gains` (n,).

        Raises:
            ModelError: lightgbm is not installed.
        """
        _require_lightgbm()
        from lightgbm import LGBMRanker

        order = np.argsort(np.asarray(targets), kind="stable")
        names, sizes = np.unique(np.asarray(targets), return_counts=True)
        gain = np.asarray(gains, np.float64)
        label = np.concatenate([grade_gains(gain[np.asarray(targets) == name]) for name in names])
        self._model = LGBMRanker(**_SETTINGS)
        self._model.fit(np.asarray(features, np.float64)[order], label, group=sizes)

    def scores(self, features: npt.ArrayLike) -> FloatArray:
        """Scores float64[m] of rows of features (m, d)."""
        return np.asarray(self._model.predict(np.asarray(features, np.float64)), np.float64)
