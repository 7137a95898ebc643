"""One update: select rows for a traffic window, train from the live version without forgetting, evaluate, promote.

An update is identified by its window and its parent version, so a killed update is continued, not repeated. The live
version changes only after the gate accepted a complete adapter. Modules, in reading order: `run_update` (one language),
`run_updates` (several), `lock`, `windows`, `window_clusters`, `spec`, `selection`, `worker` (training), `gate_eval`,
`gate`, `promotion`, `notify_monitor`. COMPASS, section 3.3 and appendix D.
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
