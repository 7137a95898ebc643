"""What the path of a source is: a file by its ending, a folder, the atlas, or a hub id.

Key property: a path that exists is never a hub id, and neither is one that is written as a path. Endings count in any case.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from compass_ray.config import ConfigError
from compass_ray.config.paths import is_local
from compass_ray.sources import atlas
from compass_ray.texts import shorten

ATLAS_SIZES = {"atlas": atlas.FULL, "atlas:small": atlas.SMALL}
COMPRESSED = (".gz", ".bz2", ".xz")
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
_ENDINGS = (PARQUET, *JSON_ENDINGS, *DELIMITERS)
TAKEN = f"{', '.join(_ENDINGS)} (text files also with {', '.join(COMPRESSED)}), a folder, or a hub id"
"""What the path of a source may be, for messages."""
MAX_ENTRIES = 100_000
"""Maximum number of files and folders below the folder of a source. A folder with more is no data set."""


def list_files(folder: Path) -> list[Path]:
    """Every file below a folder, sorted. Folders that cannot be listed are left out, and links to folders are not followed.

    Raises:
        ConfigError: there are more than `MAX_ENTRIES` files and folders.
    """
    files: list[Path] = []
    entries = 0
    for parent, folders, names in os.walk(folder):
        entries += len(folders) + len(names)
        if entries > MAX_ENTRIES:
            raise ConfigError(f"{folder} has more than {MAX_ENTRIES:,} files and folders; give the folder of the rows alone")
        files += [Path(parent, name) for name in names if os.path.isfile(os.path.join(parent, name))]
    return sorted(files)


def table_ending(path: str) -> str | None:
    """The ending that names the format of a table, in lower case and without compression; None for other files.

    >>> table_ending("Rows.JSONL"), table_ending("rows.csv.gz"), table_ending("rows.xlsx")
    ('.jsonl', '.csv', None)
    """
    name = path.lower()
    plain = name.removesuffix(next((each for each in COMPRESSED if name.endswith(each)), ""))
    return next((each for each in _ENDINGS if plain.endswith(each) and (plain == name or each != PARQUET)), None)


def is_hub_id(path: str) -> bool:
    """Whether a path can only be a hub id: it does not exist, and is not written as a path or below an existing folder."""
    parent = Path(path).parent
    return path not in ATLAS_SIZES and "://" not in path and not is_local(path) and (parent == Path() or not parent.is_dir())


def missing_path_error(path: str) -> ConfigError:
    """The error for a path that does not exist, with the nearest name that does."""
    if "://" in path:
        return ConfigError(f"{shorten(path)}: rows are read from files on this machine; download them, and give their path")
    what = "file" if table_ending(path) else "folder"
    return ConfigError(f"{shorten(path)}: the {what} does not exist; {_nearest_name(path)}give {TAKEN}")


def _nearest_name(path: str) -> str:
    """The existing name most similar to the first missing part of a path, as the start of a remedy."""
    for parent in Path(path).parents:
        if parent.is_dir():
            missing = Path(path).relative_to(parent).parts[0]
            close = difflib.get_close_matches(missing, [each.name for each in parent.iterdir()], n=1, cutoff=0.5)
            return f"the nearest name is {str(parent / close[0])!r}; " if close else ""
    return ""
