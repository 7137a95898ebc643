"""Find a language's budget: what its trials train on, one trial, and the record of them all (COMPASS, section 5.2).

Key property: every trial of a language is judged by the same rows, which none of them trains on, and trains exactly as
its adapter will. What the trials share is written down first, in the budget's own artefact, so that a trial reads
only that. No Ray: it runs in any process, and says nothing about which trials go on.
"""

from compass_ray.budget_tuning.concluding import conclude, predict
from compass_ray.budget_tuning.making import identity
from compass_ray.budget_tuning.preparing import prepare
from compass_ray.budget_tuning.trials import Epoch, Trial, attempt, ended, keep, kept

__all__ = ["Epoch", "Trial", "attempt", "conclude", "ended", "identity", "keep", "kept", "predict", "prepare"]
