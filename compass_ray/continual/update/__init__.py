"""One update: select for a traffic window, train from the served version without forgetting, judge, promote.

Key property: an update is named by its window and its parent, so one that was killed is finished, not repeated, and the
served version changes only after the gate has accepted a whole adapter. Rooms: `windows` to update for, the `hours` of
updates, the `plan` of one, `selecting`, the `worker` that trains, `judging`, `outcomes`; `making` one on Ray, `several` at
once, `holding` a language so that one is made at a time, and `answering` the monitor. COMPASS, section 3.3 and appendix D.
"""

from compass_ray.continual.update.answering import answer_monitor
from compass_ray.continual.update.holding import UpdateHeldError
from compass_ray.continual.update.hours import require_hours
from compass_ray.continual.update.making import update
from compass_ray.continual.update.outcomes import Outcome
from compass_ray.continual.update.plan import update_settings
from compass_ray.continual.update.several import Updates, update_all
from compass_ray.continual.update.windows import Window, offered_window, offered_windows, read_window

__all__ = [
    "Outcome",
    "UpdateHeldError",
    "Updates",
    "Window",
    "answer_monitor",
    "offered_window",
    "offered_windows",
    "read_window",
    "require_hours",
    "update",
    "update_all",
    "update_settings",
]
