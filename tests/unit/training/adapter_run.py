"""A hand-written run for one adapter: a pool of twelve rows and a selection of all of them."""

from __future__ import annotations

import pyarrow as pa

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig, parse_config
from compass_ray.training.adapter_job import AdapterPlan
from tests.unit.fakes import make_allocation

CONFIG: RunConfig = parse_config(
    {
        "languages": ["sw"],
        "train": {"adapter": {"r": 4, "alpha": 8}, "learning_rate": 1e-3, "epochs": 3, "batch_size": 4, "holdout": 0.25},
    }
)
_ROWS = 12


def make_run(uri: str) -> RunDir:
    """Create the run and begin its adapter."""
    run = RunDir(uri)
    ids = [f"row-{i}" for i in range(_ROWS)]
    prompts = [f"Which number comes after {i}? {'please ' * (i % 5)}" for i in range(_ROWS)]
    pool = run.pool.begin(Identity("pool", {}, {}))
    pool.write_table(
        "rows.parquet", pa.table({"row_id": ids, "prompt": prompts, "response": [f"{i + 1} yes" for i in range(_ROWS)]})
    )
    pool.publish()
    selection = run.selection("compass", "sw").begin(Identity("select", {}, {}))
    clusters = pa.array([i % 2 for i in range(_ROWS)], pa.int32())
    selection.write_table("rows.parquet", pa.table({"row_id": ids, "cluster": clusters, "weight": pa.array([1.0] * _ROWS)}))
    make_allocation(3, 1).write(selection)
    selection.publish()
    plan_of(run).artifact.begin(plan_of(run).identity)
    return run


def plan_of(run: RunDir) -> AdapterPlan:
    """The adapter to train."""
    return AdapterPlan("sw", run.adapter("sw", "v0001"), Identity("train", {}, {}), run.selection("compass", "sw"), served=False)
