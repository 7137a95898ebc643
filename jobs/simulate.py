"""Job: simulate traffic drift, as ``python -m jobs.simulate --preset atlas --run s3://BUCKET/runs/first``.

Takes the options of ``compass-ray simulate``. Stages up to the clusters run first if needed. Nothing is trained without
``--training``, which compares what updates with each strategy learn about new subjects and forget about old ones.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["simulate"]
    main()
