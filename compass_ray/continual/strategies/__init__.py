"""How an update learns what is new without losing what was known: the strategies that can be compared.

Key property: a strategy is a row of `STRATEGIES`, and says from where an update starts and which of the rows trained on so
far it looks back at, for rehearsal and for elastic weights; all that select take the same number of new rows. Plain
functions of rows and adapters: no Ray, no run. COMPASS, section 3.3.3 and appendix D.
"""

from compass_ray.continual.strategies.replay import MAX_FISHER_ROWS, ReplayRows, select_replay_rows
from compass_ray.continual.strategies.table import STRATEGIES, ReplaySource, UpdateStrategy, build_objective

__all__ = [
    "MAX_FISHER_ROWS",
    "STRATEGIES",
    "ReplayRows",
    "ReplaySource",
    "UpdateStrategy",
    "build_objective",
    "select_replay_rows",
]
