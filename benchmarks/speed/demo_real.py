"""Wall time and peak memory of the demo on real models and rows, with its accuracies and the chance level.

The demo runs as its command, in processes of its own. Memory is that of all of them together: pages that processes share count
proportionally to each (PSS), sampled once a second. Replies and the drift summary are printed. Run it on an idle machine with two
cores, with the variables of the preset (see docs/quickstart.md) and a new folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import Record, Value, parser, without_run, write_record
from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.report.comparison import compare

PRESET, SMALL_PRESET = "gemma-3-270m", "atlas-test"
_GIB = 1 << 30


@dataclass(frozen=True)
class MeasuredDemo:
    """Result of the command as JSON, its wall seconds, and the peak memory of its processes in bytes."""

    result: dict[str, Any]
    seconds: float
    peak: int


def run_demo(preset: str, folder: Path) -> MeasuredDemo:
    """Run the demo in ``folder``.

    Raises:
        SystemExit: the demo failed.
    """
    command = [sys.executable, "-m", "compass_ray", "demo", "--preset", preset, "--run", str(folder), "--json"]
    started, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as printed:
        process = psutil.Popen(command, stdout=printed)
        while True:
            peak = max(peak, _memory(process))
            try:
                code = process.wait(timeout=1.0)
                break
            except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
                continue
        printed.seek(0)
        text = printed.read()
    if code:
        raise SystemExit(f"the demo failed with exit code {code}; its messages are above")
    return MeasuredDemo(json.loads(text), time.monotonic() - started, peak)


def _memory(process: psutil.Popen) -> int:
    """Bytes of a process and all below it; those that just ended count nothing."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    for each in family:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def summarize(run: RunDir, preset: str, demo: MeasuredDemo) -> dict[str, Value]:
    """Seconds, memory, requests, and accuracy by language and method on all subjects."""
    rows = compare(run, load_run_config(preset)).rows_in("all")
    accuracy: dict[str, Value] = {
        row.language: {
            "items": row.items,
            "chance": row.chance,
            **{method: found.mean for method, found in row.accuracy.items()},
        }
        for row in rows
    }
    return {
        "seconds": demo.seconds,
        "peak_gib": demo.peak / _GIB,
        "requests": demo.result["requests"],
        "failed": demo.result["failed"],
        "updated": int(demo.result["outcome"] is not None),
        "accuracy": accuracy,
    }


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--run", type=Path, help="new folder that keeps the run (default: a temporary one)")
    arguments = options.parse_args(argv)
    preset = SMALL_PRESET if arguments.small else PRESET
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.run or Path(temporary) / "run"
        demo = run_demo(preset, folder)
        numbers = summarize(RunDir(str(folder)), preset, demo)
    for line in demo.result["lines"]:
        print(line, file=sys.stderr)
    for reply in demo.result["replies"]:
        print(" | ".join(reply.values()), file=sys.stderr)
    words = without_run(sys.argv[1:] if argv is None else argv)
    return write_record("speed/demo_real", arguments, seeds=[0], settings={"preset": preset}, numbers=numbers, argv=words)


if __name__ == "__main__":
    main()
