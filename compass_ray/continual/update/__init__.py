"""One update: select for a traffic window, train from the served version without forgetting, judge, promote.

Key property: an update is named by its window and its parent, so one that was killed is finished, not repeated, and the
served version changes only after the gate has accepted a whole adapter. Rooms: `windows` to update for, the `hours` of
updates, the `plan` of one, `selecting`, the `worker` that trains, `judging`, `outcomes`; `making` one on Ray, `several` at
once, `holding` a language so that one is made at a time, and `answering` the monitor. COMPASS, section 3.3 and appendix D.
"""

from compass_ray.continual.update.lock import UpdateLockedError
from compass_ray.continual.update.notify_monitor import notify_outcomes
from compass_ray.continual.update.promotion import UpdateResult
from compass_ray.continual.update.run_update import run_update
from compass_ray.continual.update.run_updates import UpdateBatch, run_updates
from compass_ray.continual.update.spec import update_settings
from compass_ray.continual.update.windows import (
    Window,
    load_ready_window,
    load_ready_windows,
    read_window,
    require_scheduled_time,
)

__all__ = [
    "UpdateBatch",
    "UpdateLockedError",
    "UpdateResult",
    "Window",
    "load_ready_window",
    "load_ready_windows",
    "notify_outcomes",
    "read_window",
    "require_scheduled_time",
    "run_update",
    "run_updates",
    "update_settings",
]
