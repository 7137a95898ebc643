"""Measured transfers: how much rows of one language improved a target language, and statistics of both data sets.

Key property: the table stores measurements of data and training. Distances between languages come from the vectors at run
time. The packaged table was measured on the atlas by `benchmarks/paper/transfers.py`, with small models on short facts.
A ranker trained on it is no better than chance for new targets, so supply your own table for meaningful langrank results.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from compass_ray.config import ConfigError
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.baselines.transfer_ranking import MEASURED
from compass_ray.languages import pool_code

PACKAGED = "transfers.json"
_COLUMNS = ("target", "transfer", "gain", *MEASURED)
_FORMATS = (".csv", ".json", ".parquet")


@dataclass(frozen=True)
class Transfers:
    """Measured transfers: language codes, `gain` float64[n] (higher is better) and `measured` float64 (n, 6)."""

    target: tuple[str, ...]
    transfer: tuple[str, ...]
    gain: FloatArray
    measured: FloatArray
    source: str
    sha256: str
    """Hash of the file, which the scores of a ranker depend on."""

    def without(self, target: str) -> Transfers:
        """The table without transfers to or from one language."""
        keep = np.array([target not in pair for pair in zip(self.target, self.transfer, strict=True)], np.bool_)
        kept = [i for i, each in enumerate(keep) if each]
        names = tuple(self.target[i] for i in kept), tuple(self.transfer[i] for i in kept)
        return Transfers(*names, self.gain[keep], self.measured[keep], self.source, self.sha256)


def read_transfers(path: str | None = None) -> Transfers:
    """Read a table of transfers (.csv, .json or .parquet); the packaged one if ``path`` is None.

    Codes are converted to those of a pool, for example swh to sw.

    Raises:
        ConfigError: the file cannot be read, a column is missing, empty or not numeric, or a code is unknown.
    """
    data, name = _read_bytes(path)
    table = _validate(_parse(data, name), name)
    measured = np.column_stack([_numbers(table, column) for column in MEASURED])
    target, transfer = (_language_codes(table, side, name) for side in ("target", "transfer"))
    if len(set(target)) < 2:
        raise ConfigError(f"{name}: a ranker needs transfers to at least two targets; found {', '.join(sorted({*target}))}")
    source = "atlas" if path is None else Path(path).name
    return Transfers(target, transfer, _numbers(table, "gain"), measured, source, hashlib.sha256(data).hexdigest())


def _read_bytes(path: str | None) -> tuple[bytes, str]:
    if path is None:
        return resources.files(__package__ or "").joinpath(PACKAGED).read_bytes(), PACKAGED
    if Path(path).suffix.lower() not in _FORMATS:
        raise ConfigError(f"select.transfer.results is {path!r}; expected a file that ends in {', '.join(_FORMATS)}")
    try:
        return Path(path).read_bytes(), path
    except OSError as error:
        raise ConfigError(f"select.transfer.results: {path} cannot be read: {error.strerror}") from None


def _parse(data: bytes, name: str) -> pa.Table:
    try:
        if name.lower().endswith(".json"):
            found = json.loads(data)
            return pa.Table.from_pylist(found["rows"] if isinstance(found, dict) else found)
        if name.lower().endswith(".parquet"):
            return pyarrow.parquet.read_table(io.BytesIO(data))
        codes = dict.fromkeys(_COLUMNS[:2], pa.string())
        return pyarrow.csv.read_csv(io.BytesIO(data), convert_options=pyarrow.csv.ConvertOptions(column_types=codes))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException):
        raise ConfigError(f"{name} is not a table of transfers; expected columns {', '.join(_COLUMNS)}") from None


def _validate(table: pa.Table, name: str) -> pa.Table:
    if missing := [column for column in _COLUMNS if column not in table.column_names]:
        raise ConfigError(f"{name} has no column {', '.join(missing)}; expected columns {', '.join(_COLUMNS)}")
    for column in _COLUMNS[2:]:
        kind = table[column].type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)) or not _finite(table[column]):
            raise ConfigError(f"{name}: column {column} ({kind}) must hold a finite number in every row")
    if any(table[column].null_count for column in _COLUMNS[:2]):
        raise ConfigError(f"{name}: every row needs target and transfer; fill them in, or remove the rows")
    return table


def _language_codes(table: pa.Table, side: str, name: str) -> tuple[str, ...]:
    given = [str(code) for code in table[side].to_pylist()]
    found = {code: _language_code(code, f"{name}: column {side}") for code in dict.fromkeys(given)}
    return tuple(found[code] for code in given)


def _language_code(given: str, where: str) -> str:
    """Pool code of a language: that of Global-MMLU for any code or label of it, otherwise ISO 639-3."""
    if code := pool_code(given):
        return code
    raise ConfigError(
        f"{where} has {given!r}, which is not a language code; expected a code of Global-MMLU, such as 'sw', or of "
        f"ISO 639-3 for other languages, such as 'bul'"
    )


def _finite(column: pa.ChunkedArray) -> bool:
    return column.null_count == 0 and bool(pc.all(pc.is_finite(column)).as_py())


def _numbers(table: pa.Table, column: str) -> FloatArray:
    return np.asarray(table[column].to_numpy(), np.float64)
