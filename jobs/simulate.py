"""Job: the drift alarm on simulated users, as ``python -m jobs.simulate --preset atlas --run s3://BUCKET/runs/first``.

Takes the options of ``compass-ray simulate``. What a run lacks up to its clusters is made first; nothing is trained but with
``--training``, which compares what updates by each strategy learn of new subjects and forget of old ones.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["simulate"]
    main()
