"""The rows that a method chose for a language, each with its prompt and what the method wrote of it, as one table.

Key property: it is the selection's own table in its own order, joined with the pool by row_id and with the allocation by
cluster; no number is made here. COMPASS, sections 3.2.2 and 3.2.3. It does not say which rows were passed over.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError
from compass_ray.records.allocation import AllocationRecord
from compass_ray.report.explain import read_selection
from compass_ray.report.explain_text import COMPASS, shorten
from compass_ray.report.run_reader import RunReader

_WRITERS = {".csv": pacsv.write_csv, ".parquet": pq.write_table}
_PROMPT = 40
"""Characters of a prompt in a terminal."""


def read_selected_rows(run: RunDir, language: str, method: str = COMPASS) -> pa.Table:
    """One row a selected row: tables.SELECTED, with ``prompt`` and its cluster's ``cluster_weight`` and ``cluster_quota``.

    A row that is used again has a row for each use. Noise has neither weight nor quota.

    Raises:
        ArtifactError, ConfigError: there is no such selection; see `made_selection`.
    """
    evidence = RunReader(run)
    made = read_selection(evidence, method, language)
    prompts = run.pool.read_table("rows.parquet", ["row_id", "prompt"])
    at = pc.index_in(made.rows["row_id"], value_set=prompts["row_id"])
    joined = made.rows.append_column("prompt", prompts["prompt"].take(at))
    for name, values in _cluster_columns(made.allocation, made.rows["cluster"]).items():
        joined = joined.append_column(name, values)
    first = ["row_id", "role", "language", "prompt", "cluster", "cluster_weight", "cluster_quota"]
    return joined.select([*first, *(name for name in made.rows.column_names if name not in first)])


def write_rows(table: pa.Table, file: Path) -> None:
    """Write the table as CSV or Parquet, by the file's name.

    Raises:
        ConfigError: another ending.
    """
    if file.suffix not in _WRITERS:
        raise ConfigError(f"--output {str(file)!r}: rows are written as {' or '.join(_WRITERS)}; give a name that ends so")
    _WRITERS[file.suffix](table, str(file))


def format_lines(table: pa.Table) -> list[str]:
    """The rows as aligned lines for a terminal below a header, prompts last and cut short."""
    names = [*(name for name in table.column_names if name != "prompt"), "prompt"]
    rows = [names, *([_text(row[name]) for name in names] for row in table.to_pylist())]
    widths = [max(len(row[at]) for row in rows) for at in range(len(names) - 1)]
    return ["  ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows]


def _cluster_columns(allocation: AllocationRecord, cluster: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    known = allocation.clusters
    at = pc.index_in(cluster, value_set=pa.array([each.cluster for each in known], cluster.type))
    return {
        "cluster_weight": pa.array([each.weight for each in known], pa.float64()).take(at),
        "cluster_quota": pa.array([each.quota for each in known], pa.int64()).take(at),
    }


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else shorten(str(value), _PROMPT)
