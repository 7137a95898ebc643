"""Job: the quantile test, as ``python -m jobs.quantiles --preset phi-4-mini --run URI --languages sw,hi``.

Takes the options of ``compass-ray quantile-test``. Complete artifacts of an earlier job are reused.
"""

import sys

from compass_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["quantile-test"]
    main()
