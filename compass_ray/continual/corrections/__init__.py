"""Labelled traffic: users' corrections that may join what an update is trained on, and the record of those that may not.

Key property: what enters depends on what was said, by which keys, and on chance by name, never on the order of arrival; each
correction has a verdict with its reason. Rooms: `verdicts`, the rules of `texts`, `languages`, `nearness` and `suspicion`,
`judging` that applies them, `reviews` by people, and `joining` to a selection. Beyond COMPASS, section 3.3. It trains nothing.
"""

from compass_ray.continual.corrections.filter import SHOWN_ID_DIGITS, FilterModels, FilterResult, filter_corrections
from compass_ray.continual.corrections.mixing import MixedSelection, bind_identity, list_accepted, mix_corrections, read_mark
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
    "read_mark",
    "record_reviews",
]
