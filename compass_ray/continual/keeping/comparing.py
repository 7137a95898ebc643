"""Whether a version is worse than the one before, by live signals.

Key property: only what means the same for both is compared. The share of replies that users rate bad and the share of questions
answered right do. The loss of a version's own replies does not: it says how sure the version is of them, and training makes it
surer whether it is right or not. So a loss is compared with the version's own first window only, and while the prompts are
the kind that they were: where they have moved, a rise is theirs, and the drift alarm's to answer. The false-alarm rate is shared
among the legs that there are. Beyond the paper, which never takes a version back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compass_ray.config import DriftConfig
from compass_ray.core.drift.decision import StatTestResult
from compass_ray.core.drift.performance import MinEffects, QualitySignals, run_quality_tests


def compare_versions(
    before: QualitySignals, now: QualitySignals, drift: DriftConfig, *, first: Sequence[float] = ()
) -> tuple[StatTestResult, ...]:
    """The legs on which ``now`` can be compared with the version before, and with its own ``first`` losses where given.

    >>> from compass_ray.config import DriftConfig
    >>> sure, unsure = Signals(nll=np.full(50, 0.1), bad=5, rated=60), Signals(nll=np.full(50, 2.0), bad=6, rated=60)
    >>> [(leg.name, leg.exceeded, leg.level) for leg in compare(sure, unsure, DriftConfig())]
    [('feedback', False, 0.01)]
    >>> [(leg.name, leg.exceeded, leg.level) for leg in compare(sure, unsure, DriftConfig(), first=[1.0] * 50)]
    [('loss', True, 0.005), ('feedback', False, 0.005)]
    """
    floors = MinEffects(loss=drift.min_loss_increase, bad=drift.min_bad_feedback_increase, canary=drift.min_canary_accuracy_drop)
    reference = replace(before, nll=np.asarray(first, dtype=np.float64))
    legs = run_quality_tests(reference, now, drift.false_alarm_rate, floors)
    return tuple(replace(leg, level=drift.false_alarm_rate / len(legs)) for leg in legs)


def is_worse(legs: Sequence[StatTestResult]) -> bool:
    """Whether any leg is beyond its bounds."""
    return any(leg.exceeded for leg in legs)


def describe_tests(legs: Sequence[StatTestResult]) -> str:
    """Legs in words.

    >>> told([Leg("feedback", 0.0004, 0.005, 0.3, 0.1, 60, 50)])
    'share of replies rated bad +0.300 (p = 0.0004)'
    """
    return ", ".join(f"{_TEST_LABELS[leg.name]} {leg.effect:+.3f} (p = {leg.p_value:.4f})" for leg in legs)


_TEST_LABELS = {
    "loss": "median loss since its first window",
    "feedback": "share of replies rated bad",
    "canary": "share of questions answered wrong",
}
