"""Labelled traffic: users' corrections that may join what an update is trained on, and the record of those that may not.

Key property: what enters depends on what was said, by which keys, and on chance by name, never on the order of arrival; each
correction has a verdict with its reason. Rooms: `verdicts`, the rules of `texts`, `languages`, `nearness` and `suspicion`,
`judging` that applies them, `reviews` by people, and `joining` to a selection. Beyond COMPASS, section 3.3. It trains nothing.
"""

from compass_ray.continual.labelled.joining import Joined, accepted, join, standing_mark
from compass_ray.continual.labelled.judging import judged
from compass_ray.continual.labelled.verdicts import State, Verdict

__all__ = ["Joined", "State", "Verdict", "accepted", "join", "judged", "standing_mark"]
