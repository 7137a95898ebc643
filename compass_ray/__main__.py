"""``python -m compass_ray`` is the ``compass-ray`` command."""

from compass_ray.cli import main

main()
