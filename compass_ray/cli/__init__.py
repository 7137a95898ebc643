"""The ``compass-ray`` command: parse, call, print. No work is done here.

Exit code 0 when done, 2 for a request that cannot be run as given, 1 for a failure; neither shows a stack trace.
"""

# Each registers its commands; --help lists them in this order.
from compass_ray.cli import run_commands  # isort: skip
from compass_ray.cli import experiment  # isort: skip
from compass_ray.cli import report  # isort: skip
from compass_ray.cli import serve_export  # isort: skip
from compass_ray.cli import recluster  # isort: skip
from compass_ray.cli import update  # isort: skip
from compass_ray.cli import corrections  # isort: skip
from compass_ray.cli import simulate  # isort: skip
from compass_ray.cli import adapters  # isort: skip
from compass_ray.cli.app import app, main

__all__ = [
    "adapters",
    "app",
    "corrections",
    "experiment",
    "main",
    "recluster",
    "report",
    "run_commands",
    "serve_export",
    "simulate",
    "update",
]
