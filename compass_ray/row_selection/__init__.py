"""Select training rows for one target language from the artifacts of a run.

The package connects stored labels and scores with the pure selection in `core`. It serves the first selection of a language
and its updates, where a traffic window is the guide set. No Ray.
"""

from compass_ray.row_selection.all_languages import select_for_all_languages
from compass_ray.row_selection.baseline_features import BaselineFeatures, PoolTexts
from compass_ray.row_selection.baselines import method_settings
from compass_ray.row_selection.load import GUIDE_LABELS, open_guides, open_pool, open_problems
from compass_ray.row_selection.method_selection import MethodSelection, build_rule, select_by_method
from compass_ray.row_selection.pool_store import prompt_keys, store_pool
from compass_ray.row_selection.pool_view import PoolView
from compass_ray.row_selection.problem import (
    Guide,
    SelectionProblem,
    WindowGuide,
    eval_question_keys,
    first_adapter_problem,
    retrain_problem,
    update_problem,
)

__all__ = [
    "GUIDE_LABELS",
    "BaselineFeatures",
    "Guide",
    "MethodSelection",
    "PoolTexts",
    "PoolView",
    "SelectionProblem",
    "WindowGuide",
    "build_rule",
    "eval_question_keys",
    "first_adapter_problem",
    "method_settings",
    "open_guides",
    "open_pool",
    "open_problems",
    "prompt_keys",
    "retrain_problem",
    "select_by_method",
    "select_for_all_languages",
    "store_pool",
    "update_problem",
]
