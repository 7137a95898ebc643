"""How an update learns what is new without losing what was known: the strategies that can be compared.

Key property: a strategy is a row of `STRATEGIES`, and says from where an update starts and which of the rows trained on so
far it looks back at, for rehearsal and for elastic weights; all that select take the same number of new rows. Plain
functions of rows and adapters: no Ray, no run. COMPASS, section 3.3.3 and appendix D.
"""

from compass_ray.continual.strategies.kinds import STRATEGIES, Source, Strategy
from compass_ray.continual.strategies.looking_back import MOST_FISHER_ROWS, LookedBack, look_back
from compass_ray.continual.strategies.objectives import objective

__all__ = ["MOST_FISHER_ROWS", "STRATEGIES", "LookedBack", "Source", "Strategy", "look_back", "objective"]
