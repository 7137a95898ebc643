"""`python -m compass_ray.models.tiny DIRECTORY [SEED]` builds the small models of the atlas."""

import sys
from pathlib import Path

from compass_ray.models.tiny.build import build


def main(arguments: list[str]) -> int:
    """Build into the directory of the command line. Return 2 for wrong usage."""
    if not 1 <= len(arguments) <= 2 or (len(arguments) == 2 and not arguments[1].isdecimal()):
        print("usage: python -m compass_ray.models.tiny DIRECTORY [SEED]", file=sys.stderr)
        return 2
    build(Path(arguments[0]), int(arguments[1]) if len(arguments) == 2 else 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
