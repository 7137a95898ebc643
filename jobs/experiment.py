"""Job: variants of a run side by side, as ``python -m jobs.experiment --preset phi-4-mini --run URI --vary seed=0,1``.

Takes the options of ``compass-ray experiment``. What an earlier job finished is not made again; it ends with 1 if a
variant failed.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["experiment"]
    main()
