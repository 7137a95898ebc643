"""Find the budget of a language by trial trainings or by a forecast (COMPASS, section 5.2).

Key property: all trials of a language are evaluated on the same held-out rows and train exactly as the adapter will. Data
that the trials share is written first, into the artifact of the budget, and a trial reads only that. No Ray.
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
