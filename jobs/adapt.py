"""Job: a whole run, as ``python -m jobs.adapt --preset phi-4-mini --run s3://BUCKET/runs/first``.

Submitted like all jobs here, by ``ray job submit --runtime-env jobs/runtime_env.yaml --working-dir . -- COMMAND``. Takes the
options of ``compass-ray adapt``, prints its progress to the job log, and goes on where an earlier one stopped.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["adapt"]
    main()
