"""When two prompts, and when two items of benchmarks, are the same one (COMPASS, section 4.1).

Key property: by text, in spite of case, spacing and encoding; and by what a benchmark calls its items, which is the same in
all its languages and in the parts that it comes in. MMLU-ProX took many items over from MMLU and says from which subject: such
an item is found in Global-MMLU by its English text in that subject, and is then known in every language.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from compass_ray.config import ConfigError, PoolConfig
from compass_ray.sources.column_mapping import MappedTable, load_parts

ItemIdentity = tuple[str, str]
"""A family of benchmarks and the item's name in it."""
_FROM_MMLU = "ori_mmlu-"
"""How MMLU-ProX begins the source of an item that is MMLU's; the subject follows."""


def prompt_key(prompt: str) -> str:
    """What makes two prompts the same: their text without case, spacing and ways to encode a character.

    Unicode's compatibility caseless matching (standard, D146), so fullwidth forms, ligatures and superscripts are as plain.

    >>> prompt_key("Ｍｊｉ\\u3000ｍｋｕｕ？") == prompt_key("mji mkuu?")
    True
    """
    folded = _fold_case(
        _fold_case(unicodedata.normalize("NFD", prompt))
    )  # folding a letter can leave one that has to be composed
    return " ".join(folded.split())


def _fold_case(text: str) -> str:
    return unicodedata.normalize("NFKC", text.casefold())


def item_identities(part: MappedTable) -> list[ItemIdentity | None]:
    """What the benchmark calls each row, None where its name means nothing outside its own file."""
    if part.layout.family is None or "item_id" not in part.table.column_names:
        return [None] * part.table.num_rows
    return [(part.layout.family, name) if name else None for name in part.table["item_id"].to_pylist()]


def find_cross_benchmark_duplicates(
    config: PoolConfig, guides: list[MappedTable], tests: list[MappedTable], language: str
) -> set[ItemIdentity]:
    """Items of the tests' benchmark that are items of the guide set under another benchmark's name.

    Looked for between Global-MMLU and MMLU-ProX only, through their English parts; none are found where the sources have no
    English part.
    """
    families = ({part.layout.family for part in parts} - {None} for parts in (guides, tests))
    if set().union(*(sides := [*families])) != {"MMLU", "MMLU-Pro"} or sides[0] == sides[1] or language == "en":
        return set()
    known = {each for part in guides for each in item_identities(part)}
    try:
        asked, tested = (load_parts(source, ("prompt",), "en") for source in (config.guides, config.tests))
    except ConfigError:
        return set()
    texts = {text for text, identity in _texts_of_mmlu_items(asked) if identity in known}
    return {identity for text, identity in _texts_of_mmlu_items(tested) if text in texts}


def _texts_of_mmlu_items(parts: Iterable[MappedTable]) -> list[tuple[tuple[str, str], ItemIdentity]]:
    """(MMLU's subject, key of the text) and identity of each row that is an item of MMLU."""
    found = []
    for part in parts:
        subjects = _mmlu_subjects(part)
        rows = zip(subjects, part.table["prompt"].to_pylist(), item_identities(part), strict=True)
        found += [((subject, prompt_key(text or "")), identity) for subject, text, identity in rows if subject and identity]
    return found


def _mmlu_subjects(part: MappedTable) -> list[str | None]:
    column = "src" if part.layout.family == "MMLU-Pro" else "subject"
    if column not in part.table.column_names:
        return [None] * part.table.num_rows
    values = part.table[column].to_pylist()
    if column == "subject":
        return list(values)
    return [each.removeprefix(_FROM_MMLU) if (each or "").startswith(_FROM_MMLU) else None for each in values]
