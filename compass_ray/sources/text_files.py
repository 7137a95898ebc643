"""Tables of text: CSV, TSV, JSON Lines and JSON arrays; and plain lines of text. All also compressed.

Key property: every cell arrives as the text that is written in the file. Dates, codes, numbers and yes or no are not typed.
A number in JSON keeps its digits; true and false are those words. CSV is quoted as RFC 4180 says, and TSV has no quoting.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import itertools
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import pyarrow as pa

from compass_ray.config import ConfigError
from compass_ray.sources.source_paths import DELIMITERS, JSON_ENDINGS, table_ending
from compass_ray.sources.text_columns import WRITE_TEXT, RefusedCells, describe_value, with_refusals

_OPENERS: Mapping[str, Callable[[str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # starts with the mark of UTF-16, so it comes first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the byte order mark at the start of a file. Without one, text is UTF-8."""
_BATCH_ROWS = 8192
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


def read_text_file(path: str, delimiter: str | None = None, conversations: Collection[str] = ()) -> pa.Table:
    """The rows of a file as columns of text, with the refusals of `text_columns` for cells that are not text.

    Args:
        path: a file whose ending is that of a text table.
        delimiter: of a CSV or TSV file, if it is not that of the ending.
        conversations: columns whose lists are kept as JSON text. They are refused as text all the same.

    Raises:
        ConfigError: the file cannot be read; the message names the row or the line.
    """
    ending = table_ending(path) or ""
    parse = _iter_json_rows if ending in JSON_ENDINGS else _iter_delimited_rows
    with _file_errors(path, "as a table"), _open_text(path, "\n" if ending in JSON_ENDINGS else "") as file:
        return _build_table(path, parse(path, file, delimiter or DELIMITERS.get(ending, "")), conversations)


def read_lines(path: str, limit: int | None = None) -> list[str]:
    """The lines of a text file, also compressed, without line ends and without blank ones; at most the first ``limit``.

    Raises:
        ConfigError: the file cannot be read, its text is not UTF-8, or no line is left.
    """
    with _file_errors(path, "as text"), _open_text(path, None) as file:
        lines = list(itertools.islice((line.rstrip("\n") for line in file if line.strip()), limit))
    if not lines:
        raise ConfigError(f"{path}: has no text; write one text on each line")
    for number, line in enumerate(lines, 1):
        if _without_bytes(line) != line:
            raise ConfigError(f"{path}: text {number} is not UTF-8; write the file again as UTF-8")
    return lines


@contextmanager
def _file_errors(path: str, use: str) -> Iterator[None]:
    """Errors of the block as errors of the file. ``use`` says what it is read as."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"its text is not {error.encoding.upper()}; write it again as UTF-8", use) from None
    except (EOFError, zlib.error):
        raise _unreadable(path, "the compressed file is not complete; write or download it again", use) from None
    except (OSError, lzma.LZMAError) as error:
        raise _unreadable(path, _describe_failure(path, error), use) from None


def _describe_failure(path: str, error: OSError | lzma.LZMAError) -> str:
    """Why the system, or the library of a compression, gives no bytes of a file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; write or download it again"
    kind = path.rpartition(".")[2].lower()
    return f"it is no {kind} file, or is damaged ({error}); write it again, or give its true ending"


def _unreadable(path: str, why: str, use: str = "as a table") -> ConfigError:
    return ConfigError(f"{path}: cannot be read {use}: {why}")


def _open_text(path: str, newline: str | None) -> io.TextIOWrapper:
    """The text of a file. A byte that is not text becomes a lone surrogate, so that its cell can be named."""
    with _open_bytes(path) as file:
        head = file.read(4)
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
    return io.TextIOWrapper(_open_bytes(path), encoding, errors="surrogateescape", newline=newline)


def _open_bytes(path: str) -> IO[bytes]:
    opener = next((each for ending, each in _OPENERS.items() if path.lower().endswith(ending)), None)
    stream: IO[bytes] = opener(path) if opener else io.BufferedReader(io.FileIO(path))
    return stream


def _iter_json_rows(path: str, file: Iterable[str], _: str) -> Iterator[Mapping[str, Any]]:
    """The objects of JSON Lines, or of one array."""
    lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
    number, first = next(lines, (0, ""))
    if first.lstrip().startswith("["):
        rows: Iterable[tuple[int, Any]] = enumerate(_decode(path, first + "".join(file), number), 1)
        place = "row"
    else:
        rows = ((n, _decode(path, line, n)) for n, line in itertools.chain([(number, first)] if first else [], lines))
        place = "line"
    for number, row in rows:
        if not isinstance(row, dict):
            raise _unreadable(path, f"{place} {number} is not a JSON object; write one object for each row")
        yield row


def _decode(path: str, text: str, line: int) -> Any:
    try:
        return _DECODER.decode(text.rstrip())
    except json.JSONDecodeError as error:
        where = f"line {line + error.lineno - 1} is not JSON from character {error.colno} on"
    except RecursionError:
        where = f"line {line} has too many brackets within brackets"
    raise _unreadable(path, f"{where}; write one object on each line, or one array of objects")


def _iter_delimited_rows(path: str, file: Iterable[str], delimiter: str) -> Iterator[Mapping[str, str]]:
    csv.field_size_limit(sys.maxsize)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        names = _column_names(path, next((row for row in reader if row), []))
        for number, row in enumerate((row for row in reader if row), 1):
            if len(row) != len(names):
                why = f"row {number} (line {reader.line_num}) has {len(row)} cells, and the first line names {len(names)} columns"
                raise _unreadable(path, f"{why}; quote cells that contain a separator or a line end")
            yield dict(zip(names, row, strict=True))
    except csv.Error:
        why = f"the quotes of line {reader.line_num} do not match; close each quote, and double quotes within a cell"
        raise _unreadable(path, why) from None


def _column_names(path: str, names: list[str]) -> list[str]:
    if not names:
        raise _unreadable(path, "it is empty; write the names of the columns on the first line")
    if twice := [name for name in names if names.count(name) > 1]:
        raise _unreadable(path, f"the first line names the column {twice[0]!r} twice; rename one of them")
    return names


def _build_table(path: str, rows: Iterator[Mapping[str, Any]], conversations: Collection[str]) -> pa.Table:
    columns = _TextColumns(path, conversations)
    while batch := list(itertools.islice(rows, _BATCH_ROWS)):
        columns.add(batch)
    return columns.table()


@dataclass
class _TextColumns:
    """Columns of the rows that were read so far, and why some cannot be used."""

    path: str
    conversations: Collection[str] = ()
    rows: int = 0
    chunks: dict[str, list[pa.Array]] = field(default_factory=dict)
    refused: dict[str, dict[tuple[str, str], list[list[int]]]] = field(default_factory=dict)
    """First and last rows of runs of cells by column, by what they hold and the remedy."""

    def add(self, batch: list[Mapping[str, Any]]) -> None:
        """Append rows. A column that a row lacks is null there."""
        for name in dict.fromkeys(itertools.chain(self.chunks, *batch)):
            before = self.chunks.setdefault(name, [pa.nulls(self.rows, pa.string())])
            before.append(self._column(name, [row.get(name) for row in batch]))
        self.rows += len(batch)

    def table(self) -> pa.Table:
        """All rows."""
        columns = {_without_bytes(name): pa.chunked_array(chunks, pa.string()) for name, chunks in self.chunks.items()}
        refusals = {
            name: [RefusedCells(self.path, *kind, rows) for kind, rows in kinds.items()] for name, kinds in self.refused.items()
        }
        return with_refusals(pa.table(columns), refusals)

    def _column(self, name: str, values: list[Any]) -> pa.Array:
        texts = [value if isinstance(value, str | None) else self._to_text(name, row, value) for row, value in enumerate(values)]
        try:
            return pa.array(texts, pa.string())
        except UnicodeEncodeError:
            return pa.array([self._replace_bytes(name, row, text) for row, text in enumerate(texts)], pa.string())

    def _to_text(self, name: str, row: int, value: Any) -> str | None:
        """The word of true or false. Another value is refused and not kept, because the column may be large and unused."""
        if isinstance(value, bool):
            return json.dumps(value)
        self._refuse(name, row, describe_value(value))
        return json.dumps(value, ensure_ascii=False) if name in self.conversations else None

    def _replace_bytes(self, name: str, row: int, text: str | None) -> str | None:
        """The text without lone surrogates, which stand for bytes that are not text."""
        if text is None or (lone := next((c for c in text if "\ud800" <= c <= "\udfff"), None)) is None:
            return text
        byte = ord(lone) - 0xDC00
        found = f"the byte 0x{byte:02X}, which is not UTF-8" if 0x80 <= byte <= 0xFF else f"half a character (U+{ord(lone):04X})"
        self._refuse(name, row, found, "write the file again as UTF-8")
        return _without_bytes(text)

    def _refuse(self, name: str, row: int, found: str, remedy: str = WRITE_TEXT) -> None:
        number = self.rows + row + 1
        runs = self.refused.setdefault(_without_bytes(name), {}).setdefault((found, remedy), [])
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])


def _without_bytes(text: str) -> str:
    """The text with a question mark for each lone surrogate."""
    return text.encode("utf-8", "replace").decode()
