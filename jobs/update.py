"""Job: one update of a language's adapter to its traffic, as ``python -m jobs.update s3://BUCKET/runs/first --language sw``.

Takes the options of ``compass-ray update``. It asks nothing: a job has no terminal.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["update"]
    main()
