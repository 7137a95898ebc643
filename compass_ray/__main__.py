"""Run the ``compass-ray`` command with ``python -m compass_ray``."""

from compass_ray.cli import main

main()
