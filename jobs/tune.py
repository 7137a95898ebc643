"""Job: a run up to each language's budget, as ``python -m jobs.tune --preset phi-4-mini --run URI --set select.budget=tuned``.

Takes the options of ``compass-ray adapt``. Complete artifacts of an earlier job are reused.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["adapt", "--until", "tune"]
    main()
