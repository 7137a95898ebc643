"""2,000 requests, 32 concurrent, on a service with vLLM as the engine, while adapters are replaced and a replica is killed.

The load and its checks are those of `serving_load`. The expected replies are those of the engine of this package, so they also
show that both engines agree. vLLM runs in an environment of its own (``make vllm-env``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.serving_fixture import SEED, Shape
from benchmarks.speed.serving_load import describe_plan, measure
from benchmarks.speed.serving_load_generator import LoadPlan

PYTHON = ".venv-vllm/bin/python"
FULL = LoadPlan(Shape(128, 2, ("sw", "hi", "ru", "am", "ko", "el"), 3), 2_000, 10, 2, (0.3,), (0.6,), 6, at_once=32)
"""Heads of width 32, the smallest that vLLM's attention on a CPU takes."""
SMALL = LoadPlan(Shape(128, 1, ("sw", "hi", "ru"), 2), 300, 3, 2, (0.3,), (0.2,), 3, at_once=16)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--python", default=PYTHON, help=f"Python of the environment with vLLM (default: {PYTHON})")
    arguments = options.parse_args(argv)
    plan = SMALL if arguments.small else FULL
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(Path(folder), plan, arguments.python)
    settings: dict[str, Value] = {"engine": "vllm", **describe_plan(plan)}
    return write_record("speed/serving_load_vllm", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
