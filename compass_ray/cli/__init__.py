"""The ``compass-ray`` command: parse, call, print. No work is done here.

Exit code 0 when done, 2 for a request that cannot be run as given, 1 for a failure; neither shows a stack trace.
"""

# Each registers its commands; --help lists them in this order.
from compass_ray.cli import running  # isort: skip
from compass_ray.cli import experimenting  # isort: skip
from compass_ray.cli import reporting  # isort: skip
from compass_ray.cli import serving  # isort: skip
from compass_ray.cli import reclustering  # isort: skip
from compass_ray.cli import updating  # isort: skip
from compass_ray.cli import reviewing  # isort: skip
from compass_ray.cli import simulating  # isort: skip
from compass_ray.cli import adapters  # isort: skip
from compass_ray.cli.root import app, main

__all__ = [
    "adapters",
    "app",
    "experimenting",
    "main",
    "reclustering",
    "reporting",
    "reviewing",
    "running",
    "serving",
    "simulating",
    "updating",
]
