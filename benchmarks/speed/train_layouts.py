"""The train stage over twelve small languages with both layouts: one Ray Train run per language, or pooled workers.

The selections are made once. Each round trains copies of the run with both layouts, on the same number of concurrent workers
with one thread each, and compares the adapters byte by byte. Wall time of the stage without the start of Ray, because the
layouts differ in how often workers start and load the base. Run it on an idle machine.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from compass_ray import pipeline
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig, load_run_config, with_overrides

LANGUAGES = ("am", "ha", "ig", "ky", "mg", "ne", "ny", "si", "sn", "so", "sw", "te")
WORKERS = 2
ADAPTERS = "adapters/*/*/adapter_model.safetensors"
Layout = Literal["pooled", "per_language"]


@dataclass(frozen=True)
class Trained:
    """Wall seconds of the stage, and the adapters by their path in the run."""

    seconds: float
    adapters: dict[str, bytes]


def settings_of(languages: Sequence[str]) -> RunConfig:
    """The preset of 42 languages with fewer languages and two concurrent workers."""
    resources = {"train_workers": WORKERS, "train_concurrency": WORKERS, "cpus_per_worker": 0.5, "cpus": WORKERS}
    values = [f"resources.{name}={value}" for name, value in resources.items()]
    return with_overrides(load_run_config("atlas-42"), [f"languages=[{','.join(languages)}]", *values])


def train_copy(selected: Path, config: RunConfig, layout: Layout) -> Trained:
    """Train a copy of the run with one layout."""
    from compass_ray.stages import train

    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(selected, Path(folder) / "run")
        started = time.monotonic()
        train.run(with_overrides(config, [f"train.layout={layout}"]), RunDir(str(copy)))
        seconds = time.monotonic() - started
        return Trained(seconds, {str(path.relative_to(copy)): path.read_bytes() for path in copy.glob(ADAPTERS)})


def measure(languages: Sequence[str], repeats: int) -> dict[str, Value]:
    """Median seconds of both layouts, their ratio in each round, and the number of equal adapters."""
    from compass_ray import ray_session

    config = settings_of(languages)
    with tempfile.TemporaryDirectory() as folder, ray_session.session(config.resources):
        selected = Path(folder) / "run"
        pipeline.run_all(config, RunDir(str(selected)), until="select")
        turns = [(train_copy(selected, config, "pooled"), train_copy(selected, config, "per_language")) for _ in range(repeats)]
    ratios = [apart.seconds / pooled.seconds for pooled, apart in turns]
    return {
        "pooled_seconds": float(np.median([pooled.seconds for pooled, _ in turns])),
        "per_language_seconds": float(np.median([apart.seconds for _, apart in turns])),
        "per_language_over_pooled": float(np.median(ratios)),
        "per_language_over_pooled_by_turn": ratios,
        "adapters": len(turns[0][0].adapters),
        "adapters_equal": min(_equal(pooled, apart) for pooled, apart in turns),
    }


def _equal(one: Trained, other: Trained) -> int:
    return sum(other.adapters.get(name) == content for name, content in one.adapters.items())


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--repeats", type=int, default=2, help="rounds; each trains all languages twice")
    arguments = options.parse_args(argv)
    languages, repeats = (LANGUAGES[:2], 1) if arguments.small else (LANGUAGES, arguments.repeats)
    numbers = measure(languages, repeats)
    settings: dict[str, Value] = {"preset": "atlas-42", "languages": languages, "workers_at_once": WORKERS, "turns": repeats}
    return write_record("speed/train_layouts", arguments, seeds=[0], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
