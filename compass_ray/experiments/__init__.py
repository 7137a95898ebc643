"""Experiments: variants of a run side by side, what they have in common made once (COMPASS, sections 5.1 to 5.3).

Key property: each variant is an ordinary run in its own folder, so everything that reads a run reads a variant. Not here:
how a run is made (`pipeline`), and how one run's methods compare (`report`).
"""

from compass_ray.experiments.measuring import measure
from compass_ray.experiments.outcomes import Outcome, Outcomes
from compass_ray.experiments.page import write
from compass_ray.experiments.pinning import with_pins
from compass_ray.experiments.running import Ended, folder, run_variants
from compass_ray.experiments.tables import Listing, listings
from compass_ray.experiments.variants import SECTION, Experiment, Variant, read_experiment

__all__ = [
    "SECTION",
    "Ended",
    "Experiment",
    "Listing",
    "Outcome",
    "Outcomes",
    "Variant",
    "folder",
    "listings",
    "measure",
    "read_experiment",
    "run_variants",
    "with_pins",
    "write",
]
