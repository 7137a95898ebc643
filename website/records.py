"""Tables of the records of benchmarks, under the section of the page that describes the benchmark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_ROWS = 60


def add_records(markdown: str, results: Path) -> str:
    """The page of benchmarks with a folded table after each section ``### NAME, NAME`` that has a record in ``results``."""
    parts = re.split(r"(?m)^(?=#{2,3} )", markdown)
    return "".join(part + "".join(_tables(part, results)) for part in parts)


def _tables(section: str, results: Path) -> Iterator[str]:
    heading = re.match(r"### (.+)\n", section)
    for name in heading[1].split(", ") if heading else ():
        for path in sorted(results.glob(f"*_{name}.json")):
            record = json.loads(path.read_text("utf-8"))
            rows = list(flatten(record["numbers"]))
            lines = ["| number | value |", "| --- | --- |", *(f"| `{key}` | {value} |" for key, value in rows[:MAX_ROWS])]
            if len(rows) > MAX_ROWS:
                lines += ["", f"{len(rows) - MAX_ROWS} more are in `benchmarks/results/{path.name}`."]
            lines = [f"`{record['command']}`", "", *lines]
            yield f'??? note "Record of {name}"\n\n' + "".join(f"    {line}\n" if line else "\n" for line in lines) + "\n"


def flatten(numbers: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The numbers of a record by dotted name; a list is one value.

    >>> list(flatten({"a": {"b": 1.5}, "c": [1, 2]}))
    [('a.b', '1.5'), ('c', '1, 2')]
    """
    if isinstance(numbers, dict):
        for key, value in numbers.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(numbers, list):
        yield prefix, ", ".join(str(each) for each in numbers)
    else:
        yield prefix, str(numbers)
