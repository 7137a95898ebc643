"""Job: update adapters to their traffic, as ``python -m jobs.update s3://BUCKET/runs/first --language sw,hi``.

Takes the options of ``compass-ray update``, such as ``--ready`` for all languages with a ready window. It does not prompt: a job
has no terminal.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["update"]
    main()
