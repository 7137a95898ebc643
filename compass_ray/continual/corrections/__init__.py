"""Users' corrections: filter them, record the verdicts, and mix the accepted ones into an update's training rows.

Which corrections are accepted depends on their texts, their API keys and a seed, never on the order of arrival. Each
correction has a verdict with a reason. Modules, in reading order: `filter` (apply all rules), `rules` and `leakage` (the
rules), `verdicts`, `reviews` (decisions by people), `mixing` (add to a selection). Extends COMPASS, section 3.3.
"""

from compass_ray.continual.corrections.filter import SHOWN_ID_DIGITS, FilterModels, FilterResult, filter_corrections
from compass_ray.continual.corrections.mixing import (
    MixedSelection,
    bind_identity,
    list_accepted,
    mix_corrections,
    read_corrections_hash,
)
from compass_ray.continual.corrections.reviews import find_corrections, record_reviews
from compass_ray.continual.corrections.verdicts import CorrectionState, CorrectionVerdict

__all__ = [
    "SHOWN_ID_DIGITS",
    "CorrectionState",
    "CorrectionVerdict",
    "FilterModels",
    "FilterResult",
    "MixedSelection",
    "bind_identity",
    "filter_corrections",
    "find_corrections",
    "list_accepted",
    "mix_corrections",
    "read_corrections_hash",
    "record_reviews",
]
