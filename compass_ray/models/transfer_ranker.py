"""Rank transfer languages with gradient-boosted trees and LambdaRank (Lin et al. 2019; COMPASS, section 4.3).

The model learns from measured transfers, with each target as a group. It gives the same result on every machine: one thread,
no sampling. Needs lightgbm from the extra `baselines`. Training excludes the ranked target, both as target and as transfer
language (`exclude_target`).
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
"""Minimum number of transfers: with fewer, no tree was seen to split, so all languages score the same."""


def check_method_requirements(config: SelectConfig, targets: Sequence[str]) -> None:
    """Check early that a method has what it needs for the target languages.

    Raises:
        ConfigError: langrank's table of transfers is invalid, or has too few without one of the targets.
        ModelError: langrank is configured without lightgbm; the message says how to install it.
    """
    if "langrank" in config.methods:
        _require_lightgbm()
        table = read_transfers(config.transfer.results)
        for target in targets:
            exclude_target(table, target)


def exclude_target(table: Transfers, target: str) -> Transfers:
    """Transfers to learn a target's ranking from: those between other languages.

    Raises:
        ConfigError: fewer than `MIN_TRANSFERS` of them are comparable, which means that they share a target with another one.
    """
    remaining = table.without(target)
    comparable = sum(count for count in Counter(remaining.target).values() if count > 1)
    if comparable < MIN_TRANSFERS:
        raise ConfigError(
            f"langrank: {comparable} of the {len(table.gain)} transfers of {table.source} can be used to learn a ranking for "
            f"{target} (neither to nor from it, and to a target with two or more); expected at least {MIN_TRANSFERS}. Add "
            f"such transfers to select.transfer.results, or remove langrank from select.methods"
        )
    return remaining


def _require_lightgbm() -> None:
    if importlib.util.find_spec("lightgbm") is None:
        raise ModelError(
            "select.methods has langrank, which needs lightgbm, but it is not installed; run "
            "pip install 'compass-ray[baselines]', or remove langrank"
        )


class TransferRanker:
    """Scores transfer languages of a target, higher is better. Scores of different targets are not comparable."""

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
