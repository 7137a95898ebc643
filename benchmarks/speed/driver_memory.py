"""Memory of the driver in a run up to the selections, at two pool sizes, and the data that the object store spilled.

Each size is a separate run from a local Parquet file, with its own driver process. Peak memory is the maximum resident set
size of the driver, as recorded by its process; Ray's workers are not included.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import Record, Value, parser, write_record

SEED = 0
ROWS = (20_000, 200_000)
SMALL_ROWS = (500, 1_000)
LANGUAGES = ("sw", "hi")
"""Target languages; the pool has every language of the small atlas."""
_MIB = 1 << 20
_BATCH = 20_000
_SPILLED = re.compile(r"Spilled (\d+) MiB")


def write_source(path: Path, rows: int) -> None:
    """A Parquet file of distinct short rows in the languages and words of the small atlas, written in batches."""
    from compass_ray.sources.atlas import SMALL, atlas_pool

    atlas = atlas_pool(SMALL).to_pylist()
    rng = np.random.default_rng(SEED)
    schema = pa.schema([(name, pa.string()) for name in ("prompt", "response", "language")])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _BATCH):
            numbers = range(start, min(start + _BATCH, rows))
            picked = [atlas[i] for i in rng.integers(len(atlas), size=len(numbers))]
            columns = {
                "prompt": [f"{row['inputs']} {number}" for row, number in zip(picked, numbers, strict=True)],
                "response": [row["targets"] for row in picked],
                "language": [row["language_code"] for row in picked],
            }
            writer.write_table(pa.table(columns, schema=schema))


def drive(source: Path, folder: Path) -> dict[str, Value]:
    """Run as the driver of one run, and return its numbers."""
    import ray
    from ray._private.internal_api import memory_summary

    from compass_ray import pipeline, ray_session
    from compass_ray.artifacts import RunDir
    from compass_ray.config import load_run_config

    sources = json.dumps([{"path": str(source)}])
    config = load_run_config("atlas-test", overrides=[f"pool.sources={sources}"], languages=LANGUAGES)
    run = RunDir(str(folder))
    with ray_session.session(config.resources):
        before = _peak()
        pipeline.run_all(config, run, until="select")
        address = ray.get_runtime_context().gcs_address
        summary = str(memory_summary(address, stats_only=True))  # type: ignore[no-untyped-call]
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "rows": run.pool.require().metrics["rows"],
        "driver_peak_mib": _peak(),
        "driver_peak_when_ray_had_started_mib": before,
        "run_directory_mib": stored / _MIB,
        "spilled_mib": sum(map(int, _SPILLED.findall(summary))),
    }


def measure(rows: int) -> dict[str, Value]:
    """Measure a run in its own process."""
    with tempfile.TemporaryDirectory() as name:
        source, folder = Path(name) / "pool.parquet", Path(name) / "run"
        write_source(source, rows)
        command = [sys.executable, "-m", "benchmarks.speed.driver_memory", "--drive", str(source), str(folder)]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        found: dict[str, Value] = json.loads(output.splitlines()[-1])
        return found


def main(argv: Sequence[str] | None = None) -> Record | None:
    """Measure both sizes and write the record; with ``--drive`` run as one of the drivers."""
    options = parser(__doc__ or "")
    options.add_argument("--drive", nargs=2, type=Path, metavar=("SOURCE", "RUN"), help="run as the driver of one run")
    arguments = options.parse_args(argv)
    if arguments.drive:
        print(json.dumps(drive(*arguments.drive)))
        return None
    few, many = (measure(rows) for rows in (SMALL_ROWS if arguments.small else ROWS))
    grown = float(str(many["driver_peak_mib"])) - float(str(few["driver_peak_mib"]))
    numbers: dict[str, Value] = {"few": few, "many": many, "driver_grows_by_mib": grown}
    settings: dict[str, Value] = {"preset": "atlas-test", "until": "select", "languages": LANGUAGES}
    return write_record("speed/driver_memory", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
