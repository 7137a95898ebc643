"""The ``compass-ray`` command: it parses options, calls the package and prints results.

Exit codes: 0 for success, 2 for an invalid request, 1 for a failure. Errors are printed without a stack trace.
"""

# Each import registers commands; --help lists them in this order.
from compass_ray.cli import run_commands  # isort: skip
from compass_ray.cli import status  # isort: skip
from compass_ray.cli import harness  # isort: skip
from compass_ray.cli import experiment  # isort: skip
from compass_ray.cli import quantiles  # isort: skip
from compass_ray.cli import report  # isort: skip
from compass_ray.cli import serve_export  # isort: skip
from compass_ray.cli import chat  # isort: skip
from compass_ray.cli import recluster  # isort: skip
from compass_ray.cli import update  # isort: skip
from compass_ray.cli import corrections  # isort: skip
from compass_ray.cli import simulate  # isort: skip
from compass_ray.cli import init  # isort: skip
from compass_ray.cli import presets  # isort: skip
from compass_ray.cli import config  # isort: skip
from compass_ray.cli import adapters  # isort: skip
from compass_ray.cli.app import app, main

__all__ = [
    "adapters",
    "app",
    "chat",
    "config",
    "corrections",
    "experiment",
    "harness",
    "init",
    "main",
    "presets",
    "quantiles",
    "recluster",
    "report",
    "run_commands",
    "serve_export",
    "simulate",
    "status",
    "update",
]
