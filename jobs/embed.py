"""Job: the pool and its embeddings, and nothing after them, as ``python -m jobs.embed --preset phi-4-mini --run s3://BUCKET/runs/first``.

Takes the options of ``compass-ray adapt``. What an earlier job finished is not made again.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["adapt", "--until", "embed"]
    main()
