"""Labelled traffic: users' corrections that may join what an update is trained on, and the record of those that may not.

Key property: what enters depends on what was said, by which keys, and on chance by name, never on the order of arrival; each
correction has a verdict with its reason. Rooms: `verdicts`, the rules of `texts`, `languages`, `nearness` and `suspicion`,
`judging` that applies them, `reviews` by people, and `joining` to a selection. Beyond COMPASS, section 3.3. It trains nothing.
"""

from compass_ray.continual.labelled.joining import Joined, accepted, bound, join, standing_mark
from compass_ray.continual.labelled.judging import SHOWN, Judgement, Means, judged
from compass_ray.continual.labelled.reviews import named, review
from compass_ray.continual.labelled.verdicts import State, Verdict

__all__ = [
    "SHOWN",
    "Joined",
    "Judgement",
    "Means",
    "State",
    "Verdict",
    "accepted",
    "bound",
    "join",
    "judged",
    "named",
    "review",
    "standing_mark",
]
