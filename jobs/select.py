"""Job: a run up to its selections, as ``python -m jobs.select --preset phi-4-mini --run s3://BUCKET/runs/first``.

Takes the options of ``compass-ray adapt``. Complete artifacts of an earlier job are reused.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["adapt", "--until", "select"]
    main()
