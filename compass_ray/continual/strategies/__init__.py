"""Update strategies: how an update learns new subjects without forgetting old ones.

A strategy is a row of `STRATEGIES`. It says from which adapter an update starts, and which earlier training rows it uses
for rehearsal and for the elastic penalty. All strategies that train select the same number of new rows. Functions of rows
and adapters: no Ray, no run. COMPASS, section 3.3.3 and appendix D.
"""

from compass_ray.continual.strategies.replay import MAX_FISHER_ROWS, EarlierRows, ReplayRows, select_replay_rows
from compass_ray.continual.strategies.table import STRATEGIES, ReplaySource, UpdateStrategy, build_objective, resolve_strategy

__all__ = [
    "MAX_FISHER_ROWS",
    "STRATEGIES",
    "EarlierRows",
    "ReplayRows",
    "ReplaySource",
    "UpdateStrategy",
    "build_objective",
    "resolve_strategy",
    "select_replay_rows",
]
