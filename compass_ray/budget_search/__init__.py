"""Find a language's budget: what its trials train on, one trial, and the record of them all (COMPASS, section 5.2).

Key property: every trial of a language is judged by the same rows, which none of them trains on, and trains exactly as
its adapter will. What the trials share is written down first, in the budget's own artefact, so that a trial reads
only that. No Ray: it runs in any process, and says nothing about which trials go on.
"""

from compass_ray.budget_search.artifact_spec import identity
from compass_ray.budget_search.publish import publish_best, publish_forecast
from compass_ray.budget_search.trial_data import prepare
from compass_ray.budget_search.trials import is_training_over, load_trial, run_trial, save_trial

__all__ = [
    "identity",
    "is_training_over",
    "load_trial",
    "prepare",
    "publish_best",
    "publish_forecast",
    "run_trial",
    "save_trial",
]
