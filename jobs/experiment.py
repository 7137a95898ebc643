"""Job: compare variants of a run, as ``python -m jobs.experiment --preset phi-4-mini --run URI --vary seed=0,1``.

Takes the options of ``compass-ray experiment``. Complete artifacts of an earlier job are reused. The exit code is 1 if
a variant failed.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["experiment"]
    main()
