"""Simulation with training: what updates with each strategy learn about new subjects and forget about old ones.

The versions are made by the code that makes the service's updates. COMPASS, section 5.5 (figure 6) and appendices D.3
(table 12) and D.4. Traffic is not monitored: every change of subjects is answered with an update.
"""

from compass_ray.evaluation.simulation.forgetting.results import TABLE_COLUMNS, ForgettingResults
from compass_ray.evaluation.simulation.forgetting.run_forgetting import render_plots, simulate_forgetting, write_results
from compass_ray.evaluation.simulation.forgetting.settings import BETAS, BUFFERS, LAMBDAS, ForgettingSettings
from compass_ray.evaluation.simulation.forgetting.trainer import ForgettingTrainer

__all__ = [
    "BETAS",
    "BUFFERS",
    "LAMBDAS",
    "TABLE_COLUMNS",
    "ForgettingResults",
    "ForgettingSettings",
    "ForgettingTrainer",
    "render_plots",
    "simulate_forgetting",
    "write_results",
]
