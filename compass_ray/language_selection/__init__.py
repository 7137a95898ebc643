"""One target language's selection from a run's artefacts: labels and scores in, selected rows and their record out.

Joins what the stages left on disk with the pure selection of `core`; used for the first selection of a language and,
with a traffic window as the guide set, for its updates. No Ray; writes nothing.
"""

from compass_ray.language_selection.choosing import Chosen, choose, rule
from compass_ray.language_selection.pool_view import PoolView
from compass_ray.language_selection.questions import (
    Guide,
    Question,
    WindowGuide,
    first_question,
    tested_keys,
    window_question,
)

__all__ = [
    "Chosen",
    "Guide",
    "PoolView",
    "Question",
    "WindowGuide",
    "choose",
    "first_question",
    "rule",
    "tested_keys",
    "window_question",
]
