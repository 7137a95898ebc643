"""Every benchmark runs in its small form and writes a record in the format of benchmarks/README.md."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed.serving_load_vllm import PYTHON

FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = (
    "speed/sampling",
    "speed/clusterers",
    "speed/density_sweep",
    "speed/selection",
    "speed/mixed_batch",
    "speed/batching",
    "speed/serving_load",
    "speed/serving_overhead",
    "speed/training",
    "speed/train_layouts",
    "speed/embedding",
    "speed/driver_memory",
    "speed/real_encoder",
    "speed/real_training",
    "speed/demo_real",
    "paper/atlas_transfer",
    "paper/budget",
    "paper/transfers",
    "paper/gap_by_method",
    "paper/clusters_on_real_embeddings",
    "paper/interval_coverage",
    "paper/representations",
    "paper/router",
    "paper/trainer_curves",
    "paper/drift_calibration",
    "paper/drift_simulation",
    "paper/forgetting",
    "speed/console",
)
UNRECORDED = (
    "speed/serving_attacks",
    "speed/serving_load_vllm",
    "paper/gradient_features",
)
"""Benchmarks without a stored record: they need a GPU, an otherwise idle machine, vLLM, or pretrained models."""
VLLM = ("speed/serving_load_vllm",)
"""Those that need vLLM, in an environment of its own."""
REAL = ("speed/real_training",)
"""Those that need real models and real rows."""
SLOW = (
    "paper/interval_coverage",
    "speed/batching",
    "speed/training",
    "paper/clusters_on_real_embeddings",
    "paper/drift_simulation",
    "speed/mixed_batch",
    "speed/clusterers",
    "speed/selection",
    "speed/real_encoder",
    "speed/console",
)
"""Those that take more than two seconds of a processor."""
SOAK = (
    "paper/trainer_curves",
    "paper/gradient_features",
    "paper/representations",
    "paper/gap_by_method",
    "paper/forgetting",
    "speed/real_training",
    "speed/demo_real",
    "speed/train_layouts",
    "speed/embedding",
    "speed/driver_memory",
    "speed/serving_load",
    "speed/serving_load_vllm",
    "speed/serving_overhead",
    "speed/serving_attacks",
    "paper/budget",
    "paper/atlas_transfer",
    "paper/transfers",
)
"""Those that start Ray or services, or take minutes."""
KEYS = ["benchmark", "command", "environment", "seeds", "settings", "numbers"]


def file_of(benchmark: str) -> str:
    return benchmark.replace("/", "_") + ".json"


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    else:
        yield value


def check_form(record: dict[str, Any], benchmark: str) -> None:
    assert list(record) == KEYS
    assert record["benchmark"] == benchmark
    assert record["command"].startswith(f"python -m benchmarks.{benchmark.replace('/', '.')}")
    assert {"cpus", "threads", "machine", "python", "packages", "device"} == record["environment"].keys()
    assert record["seeds"]
    numbers = list(leaves(record["numbers"]))
    assert numbers
    assert all(isinstance(each, int | float) and math.isfinite(each) for each in numbers)


def _marked(benchmark: str) -> Any:
    real = [pytest.mark.real_models, pytest.mark.shared_data] * (benchmark in REAL)
    size = [pytest.mark.slow] * (benchmark in SLOW) + [pytest.mark.soak] * (benchmark in SOAK)
    vllm = [pytest.mark.skipif(not (FOLDER.parent / PYTHON).exists(), reason="make vllm-env")] * (benchmark in VLLM)
    return pytest.param(benchmark, marks=size + real + vllm)


@pytest.mark.parametrize("benchmark", [_marked(each) for each in (*BENCHMARKS, *UNRECORDED)])
def test_a_small_run_writes_a_record(benchmark: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for folder in ("real_models", "shared_data") if benchmark in REAL else ():
        request.getfixturevalue(folder)
    module = importlib.import_module(f"benchmarks.{benchmark.replace('/', '.')}")
    module.main(["--small", "--output", str(tmp_path)])
    written = json.loads((tmp_path / file_of(benchmark)).read_text("utf-8"))
    check_form(written, benchmark)
    assert str(tmp_path) not in json.dumps(written), "a record names a folder of the machine it was made on"


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_stored_record_is_of_a_full_run(benchmark: str) -> None:
    record = json.loads((FOLDER / "results" / file_of(benchmark)).read_text("utf-8"))
    check_form(record, benchmark)
    assert "--small" not in record["command"]


def test_the_readme_gives_the_command_of_every_benchmark() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    found = {
        path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.py") if "def main(" in path.read_text()
    }
    assert found == {*BENCHMARKS, *UNRECORDED}
    assert all(f"python -m benchmarks.{each.replace('/', '.')}" in text for each in found)


def test_benchmarks_are_imported_without_ray() -> None:
    imports = "; ".join(f"import benchmarks.{each.replace('/', '.')}" for each in BENCHMARKS)
    check = f"{imports}; import sys; sys.exit('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rankings_from_the_table_of_the_package_are_those_of_the_record(tmp_path: Path) -> None:
    module = importlib.import_module("benchmarks.paper.transfers")
    table = FOLDER.parent / "compass_ray" / "sources" / "typology" / "transfers.json"
    record = module.main(["--judge", str(table), "--output", str(tmp_path)])
    stored = json.loads((FOLDER / "results" / "paper_transfers.json").read_text("utf-8"))["numbers"]
    for part in ("ndcg_at_3", "ndcg_at_3_by_accuracy"):
        assert record.numbers[part]["langsim"] == stored[part]["langsim"]
        assert record.numbers[part]["langrank_mean"] == pytest.approx(stored[part]["langrank_mean"], abs=0.05)
