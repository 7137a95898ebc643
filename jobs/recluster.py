"""Job: re-cluster with the stored traffic, as ``python -m jobs.recluster s3://BUCKET/runs/first``.

Takes the options of ``compass-ray recluster``. It does not prompt. The service uses the new clusters within a minute.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["recluster"]
    main()
