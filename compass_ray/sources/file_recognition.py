"""What the columns of a user's file mean: prompt, response, language, subject, and the rows of each language.

Key property: known layouts are recognized as the pool stage recognises them. Other columns are recognized by usual names. What is
not recognized is an error that lists the columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from compass_ray import languages
from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources.benchmarks.layouts import LAYOUTS, source_layout
from compass_ray.sources.column_mapping import load_parts, require_columns
from compass_ray.sources.conversations import MESSAGES
from compass_ray.sources.readers import read_raw
from compass_ray.sources.text_columns import find_conversations

ROW_COLUMNS = ("prompt", "response", "language")
GUIDE_COLUMNS = ("prompt",)
ITEM_COLUMNS = ("prompt", "option_a", "option_b", "answer")
_USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("question", "instruction", "query", "input", "inputs", "user"),
    "response": ("answer", "reply", "output", "completion", "target", "targets", "assistant"),
    "language": ("lang", "language_code", "lang_code", "locale", "iso_code"),
    "subject": ("topic", "category", "domain", "theme"),
}
"""Names that other files give to our columns, the most usual first; case does not count."""


@dataclass(frozen=True)
class RecognizedFile:
    """A file as a source, with our names of its columns."""

    source: SourceConfig
    columns: Mapping[str, str]
    """Our column names to those of the file; computed columns, such as those of conversations, are left out."""
    layout: str
    rows: Mapping[str, int]
    """Rows by code of their language, most first; empty if the file has no language."""
    unknown: Mapping[str, int]
    """Rows of languages without a code, by the language as it is written."""


def recognize_file(
    path: str, needed: Sequence[str], columns: Mapping[str, str] | None = None, language: str | None = None
) -> RecognizedFile:
    """Recognize the columns of a file, and count the rows of each language.

    Args:
        path: a file, a folder or a hub id, as in the settings of a source.
        needed: our columns that the file must have; see `ROW_COLUMNS`, `GUIDE_COLUMNS` and `ITEM_COLUMNS`.
        columns: our column names to those of the file, where they are known.
        language: the language of all rows, for a file without a column of languages.

    Raises:
        ConfigError: the file cannot be read, or a column is not recognized.
    """
    given = SourceConfig(path=path, columns=dict(columns or {}), language=language)
    raw = read_raw(given)
    source = given.model_copy(update={"columns": _complete(raw, given, needed)})
    require_columns(raw.schema, source, tuple(needed))
    layout = source_layout(source, raw.column_names)
    names = {**LAYOUTS[layout].columns, **source.columns}
    used = {ours: names.get(ours, ours) for ours in (*needed, "subject", *source.columns)}
    rows, unknown = _count(source, needed)
    mapping = {ours: theirs for ours, theirs in used.items() if theirs in raw.column_names}
    return RecognizedFile(source, mapping, layout, rows, unknown)


def _complete(raw: pa.Table, source: SourceConfig, needed: Sequence[str]) -> dict[str, str]:
    """The given columns, with those that have usual names and are not in a known layout."""
    present, found = raw.column_names, dict(source.columns)
    if absent := [ours for ours, theirs in found.items() if theirs not in present]:
        raise ConfigError(_explain_missing(source.path, absent[0], present))
    dialogue = find_conversations(raw)
    layout = LAYOUTS[source_layout(source, present)]
    if dialogue and not layout.marks and "response" in needed and not {"prompt", "response"} <= {*present, *found}:
        found[MESSAGES] = dialogue
        layout = LAYOUTS["messages"]
    derived = set(ROW_COLUMNS[:2]) if layout.marks else set()
    for ours in dict.fromkeys((*needed, "subject")):
        is_known = ours in derived or {**layout.columns, **found}.get(ours, ours) in present
        if is_known or (ours == "language" and source.language is not None):
            continue
        taken = {*layout.columns.values(), *found.values(), *needed}
        if theirs := _find_usual(ours, present, taken):
            found[ours] = theirs
        elif ours in needed:
            raise ConfigError(_explain_missing(source.path, ours, present))
    return found


def _find_usual(ours: str, present: Sequence[str], taken: set[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(present) if name not in taken}
    return next((lower[name] for name in _USUAL_NAMES.get(ours, ()) if name in lower), None)


def _explain_missing(path: str, ours: str, present: Sequence[str]) -> str:
    if not present:
        return f"{path} has no rows; give another file"
    remedy = f"name it, for example --column {ours}={present[0]}"
    if ours == "language":
        remedy = f"give --language CODE if all rows have one language, or {remedy}"
    return f"{path}: no column for {ours}; it has {', '.join(present)}. Correct this: {remedy}"


def _count(source: SourceConfig, needed: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Rows by code, and rows of unknown languages; both empty if the file has no language."""
    known: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for part in load_parts(source, tuple(needed)):
        if "language" not in part.table.column_names:
            continue
        for spelled, count in Counter(part.table["language"].to_pylist()).items():
            code = None if spelled is None else languages.pool_code(spelled)
            (unknown if code is None else known)[code or str(spelled)] += count
    return dict(known.most_common()), dict(unknown.most_common())
