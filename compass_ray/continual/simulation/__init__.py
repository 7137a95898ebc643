"""Simulated users whose subjects change, to see what the drift alarm finds, how late, and what it raises for nothing.

Here is the half that needs no training (COMPASS, appendix D.2, table 11); `learning` is the half that trains, and answers every
change of subjects with updates (section 5.5). Who wants both at once hands `detect` an `Updates`: it is called with each fresh
window and says whether the version made for it is served.
"""

from compass_ray.continual.simulation.detection import Check, Monitor, Proposal, Updates, accept_all
from compass_ray.continual.simulation.plan import Plan
from compass_ray.continual.simulation.preparing import placed, prepare
from compass_ray.continual.simulation.running import TABLE, Detection, as_json, detect, simulate
from compass_ray.continual.simulation.scenarios import NAMED, Period, Scenario, scenario

__all__ = [
    "NAMED",
    "TABLE",
    "Check",
    "Detection",
    "Monitor",
    "Period",
    "Plan",
    "Proposal",
    "Scenario",
    "Updates",
    "accept_all",
    "as_json",
    "detect",
    "placed",
    "prepare",
    "scenario",
    "simulate",
]
