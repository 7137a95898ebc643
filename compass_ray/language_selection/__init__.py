"""One target language's selection from a run's artefacts: labels and scores in, selected rows and their record out.

Joins what the stages left on disk with the pure selection of `core`; used for the first selection of a language and,
with a traffic window as the guide set, for its updates. No Ray.
"""

from compass_ray.language_selection.baselines import settings_of
from compass_ray.language_selection.choosing import Chosen, choose, rule
from compass_ray.language_selection.material import Material, PoolTexts
from compass_ray.language_selection.opening import GUIDE_LABELS, open_guides, open_pool, open_questions
from compass_ray.language_selection.pool_view import PoolView
from compass_ray.language_selection.questions import (
    Guide,
    Question,
    WindowGuide,
    anew_question,
    first_question,
    tested_keys,
    window_question,
)
from compass_ray.language_selection.stored_rows import prompt_keys, store_pool
from compass_ray.language_selection.whole_pool import choose_whole_pool

__all__ = [
    "GUIDE_LABELS",
    "Chosen",
    "Guide",
    "Material",
    "PoolTexts",
    "PoolView",
    "Question",
    "WindowGuide",
    "anew_question",
    "choose",
    "choose_whole_pool",
    "first_question",
    "open_guides",
    "open_pool",
    "open_questions",
    "prompt_keys",
    "rule",
    "settings_of",
    "store_pool",
    "tested_keys",
    "window_question",
]
