"""Job: the service for a run, until the job is stopped, as ``python -m jobs.serve s3://BUCKET/runs/first --host 0.0.0.0``.

Takes the options of ``compass-ray serve``. Stop it with ``ray job stop``.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["serve"]
    main()
