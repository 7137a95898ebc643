"""Table of the rows that a method selected for a language, with prompts and the method's scores.

Key property: the selection's own table in its own order, joined with the pool by row_id and with the allocation by cluster.
Nothing is computed. Rows that were not selected are not listed. COMPASS, sections 3.2.2 and 3.2.3.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from compass_ray.artifacts import RunDir
from compass_ray.artifacts.write_errors import explain_write_errors
from compass_ray.config import ConfigError
from compass_ray.records.allocation import AllocationRecord
from compass_ray.report.explain import read_selection
from compass_ray.report.explain_text import COMPASS, format_turns, shorten
from compass_ray.report.run_reader import RunReader

_FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"
"""The start of a cell that a spreadsheet takes for a formula (OWASP, CSV Injection)."""
_NUMBER = r"^[+\-]?[0-9]+([.,][0-9]+)*(e[+\-]?[0-9]+)?$"
_PROMPT = 40
"""Characters of a prompt in a terminal."""


def read_selected_rows(run: RunDir, language: str, method: str = COMPASS) -> pa.Table:
    """Selected rows: schemas.SELECTED, with ``prompt`` and the cluster's ``cluster_weight`` and ``cluster_quota``.

    If one of them is a conversation, ``conversation`` has all turns as one text, null for the other rows. A repeated row appears
    once for each use. Noise has neither weight nor quota.

    Raises:
        ArtifactError, ConfigError: the selection does not exist; see `read_selection`.
    """
    reader = RunReader(run)
    selection = read_selection(reader, method, language)
    prompts = run.pool.read_table("rows.parquet", ["row_id", "prompt"], optional=("messages",))
    positions = pc.index_in(selection.rows["row_id"], value_set=prompts["row_id"])
    joined = selection.rows.append_column("prompt", prompts["prompt"].take(positions))
    turns = prompts["messages"].take(positions).to_pylist() if "messages" in prompts.column_names else []
    if any(turns):
        joined = joined.append_column("conversation", pa.array([each and format_turns(each) for each in turns], pa.string()))
    for name, values in _cluster_columns(selection.allocation, selection.rows["cluster"]).items():
        joined = joined.append_column(name, values)
    texts = ["prompt", *(name for name in joined.column_names if name == "conversation")]
    first = ["row_id", "role", "language", *texts, "cluster", "cluster_weight", "cluster_quota"]
    return joined.select([*first, *(name for name in selection.rows.column_names if name not in first)])


def write_rows(table: pa.Table, file: Path) -> None:
    """Write the table as CSV or Parquet, by the file's suffix.

    In CSV, a text that a spreadsheet would take for a formula has an apostrophe before it. Parquet holds every text unchanged.

    Raises:
        ConfigError: the suffix is neither .csv nor .parquet.
        ArtifactError: the system refuses the write.
    """
    ending = file.suffix.lower()
    if ending not in _WRITERS:
        raise ConfigError(f"--output {str(file)!r}: unsupported file type; use a name that ends in {' or '.join(_WRITERS)}")
    with explain_write_errors(file):
        _WRITERS[ending](table, str(file))


def _write_csv(table: pa.Table, file: str) -> None:
    pacsv.write_csv(pa.table({name: _without_formulas(table[name]) for name in table.column_names}), file)


def _without_formulas(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column whose texts start no formula; numbers stay as they are."""
    if not pa.types.is_string(column.type):
        return column
    risky = pc.and_not(pc.match_substring_regex(column, _FORMULA), pc.match_substring_regex(column, _NUMBER))
    return pc.if_else(risky, pc.binary_join_element_wise("'", column, ""), column)


_WRITERS = {".csv": _write_csv, ".parquet": pq.write_table}


def format_lines(table: pa.Table) -> list[str]:
    """Header and rows as aligned lines for a terminal. Shortened prompts are in the last column."""
    names = [*(name for name in table.column_names if name != "prompt"), "prompt"]
    rows = [names, *([_text(row[name]) for name in names] for row in table.to_pylist())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names) - 1)]
    return ["  ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows]


def _cluster_columns(allocation: AllocationRecord, cluster: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    quotas = allocation.clusters
    positions = pc.index_in(cluster, value_set=pa.array([each.cluster for each in quotas], cluster.type))
    return {
        "cluster_weight": pa.array([each.weight for each in quotas], pa.float64()).take(positions),
        "cluster_quota": pa.array([each.quota for each in quotas], pa.int64()).take(positions),
    }


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else shorten(str(value), _PROMPT)
