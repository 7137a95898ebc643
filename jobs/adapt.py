"""Job: a complete run, as ``python -m jobs.adapt --preset phi-4-mini --run s3://BUCKET/runs/first``.

Submit it, like all jobs here, with ``ray job submit --runtime-env jobs/runtime_env.yaml --working-dir . -- COMMAND``. Takes the
options of ``compass-ray adapt``, prints progress to the job log, and continues where an earlier job stopped.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["adapt"]
    main()
