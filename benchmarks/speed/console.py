"""Time of commands that compute nothing: a help text, a usage error and the status of a run; and of the demo that makes the run.

Each command is a process of its own. Its CPU seconds are those of the process; wall seconds need an idle machine. The commands
take turns. The run is that of ``make demo``, which is measured first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.demo_real import run_demo
from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config

PRESET, SMALL_PRESET = "atlas", "atlas-test"
REPEATS, SMALL_REPEATS = 10, 1
_GIB = 1 << 30


def time_command(words: Sequence[str], code: int) -> tuple[float, float]:
    """CPU and wall seconds of one command, which must end with ``code``.

    Raises:
        SystemExit: it ended with another code.
    """
    started = time.monotonic()
    command = [sys.executable, "-m", "compass_ray", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise SystemExit(f"compass-ray {' '.join(words)} ended with exit code {process.returncode}, expected {code}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - started


def time_commands(run: Path, repeats: int) -> dict[str, Value]:
    """Median seconds of each command over rounds, after one round that is not counted."""
    commands: Mapping[str, tuple[list[str], int]] = {
        "help": (["--help"], 0),
        "typo": (["statu"], 2),
        "status": (["status", str(run)], 0),
    }
    rounds = [{name: time_command(*command) for name, command in commands.items()} for _ in range(repeats + 1)][1:]
    medians = {name: np.median([each[name] for each in rounds], axis=0) for name in commands}
    return {name: {"cpu_seconds": float(cpu), "wall_seconds": float(wall)} for name, (cpu, wall) in medians.items()}


def make_run(folder: Path, *, small: bool) -> dict[str, Value]:
    """Make the run, by the demo unless it is ``small``, and return what the demo took."""
    if small:
        RunDir(str(folder)).write_config(load_run_config(SMALL_PRESET))
        return {}
    demo = run_demo(PRESET, folder)
    return {"demo": {"wall_seconds": demo.seconds, "peak_gib": demo.peak / _GIB}}


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    repeats = SMALL_REPEATS if arguments.small else REPEATS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        numbers = make_run(folder, small=arguments.small) | time_commands(folder, repeats)
    settings: dict[str, Value] = {"preset": SMALL_PRESET if arguments.small else PRESET, "repeats": repeats}
    return write_record("speed/console", arguments, seeds=[0], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
