"""Job: a run up to its adapters, as ``python -m jobs.train --preset phi-4-mini --run s3://BUCKET/runs/first``.

Whole models are trained too where ``compass_fft`` is asked for. Takes the options of ``compass-ray adapt``. What an earlier
job finished is not made again.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["adapt", "--until", "full"]
    main()
