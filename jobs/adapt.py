"""Job: a whole run, as ``ray job submit --working-dir . -- python -m jobs.adapt --preset atlas --run URI``.

Takes the options of ``compass-ray adapt``, prints its progress to the job log, and goes on where an earlier one stopped.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["adapt"]
    main()
