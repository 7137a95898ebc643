"""Simulated traffic drift: detection rate, delay and false alarms of the drift triggers, without training.

COMPASS, appendix D.2, table 11. `forgetting` is the simulation that trains: it answers every change of subjects with updates
(section 5.5). To combine both, pass an `UpdatePolicy` to `replay_streams`: it receives each ready window and returns whether
the new version is served.
"""

from compass_ray.evaluation.simulation.drift.prompt_bank import is_prepared, prepare_prompts
from compass_ray.evaluation.simulation.drift.replay_monitor import (
    ReplayMonitor,
    SimulatedCheck,
    UpdatePolicy,
    UpdateProposal,
    accept_all,
)
from compass_ray.evaluation.simulation.drift.results import TABLE_COLUMNS, DetectionResult, as_json
from compass_ray.evaluation.simulation.drift.run_detection import replay_streams, simulate
from compass_ray.evaluation.simulation.drift.scenarios import NAMED_SCENARIOS, Period, Scenario, choose_scenario
from compass_ray.evaluation.simulation.drift.settings import SimulationSettings

__all__ = [
    "NAMED_SCENARIOS",
    "TABLE_COLUMNS",
    "DetectionResult",
    "Period",
    "ReplayMonitor",
    "Scenario",
    "SimulatedCheck",
    "SimulationSettings",
    "UpdatePolicy",
    "UpdateProposal",
    "accept_all",
    "as_json",
    "choose_scenario",
    "is_prepared",
    "prepare_prompts",
    "replay_streams",
    "simulate",
]
