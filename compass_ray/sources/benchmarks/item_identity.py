"""Identity of prompts and of benchmark items (COMPASS, section 4.1).

Key property: prompts are compared by text, without case, spacing and encoding. Items are compared by their id, which is the
same in all languages and splits of a benchmark. MMLU-ProX contains items of MMLU and names their subject. Such an item is
found in Global-MMLU by its English text in that subject, and is then known in every language.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from compass_ray.config import ConfigError, PoolConfig
from compass_ray.sources.column_mapping import MappedTable, load_parts

ItemIdentity = tuple[str, str]
"""Benchmark family and item id."""
_FROM_MMLU = "ori_mmlu-"
"""Prefix of the source field of MMLU items in MMLU-ProX; the subject follows."""


def prompt_key(prompt: str) -> str:
    """Key that is equal for equal prompts: the text without case, spacing and encoding variants.

    Unicode compatibility caseless matching (standard, D146): fullwidth forms, ligatures and superscripts match plain ones.

    >>> prompt_key("Ｍｊｉ\\u3000ｍｋｕｕ？") == prompt_key("mji mkuu?")
    True
    """
    # Twice: folding a letter can produce one that has to be composed.
    folded = _fold_case(_fold_case(unicodedata.normalize("NFD", prompt)))
    return " ".join(folded.split())


def _fold_case(text: str) -> str:
    return unicodedata.normalize("NFKC", text.casefold())


def item_identities(part: MappedTable) -> list[ItemIdentity | None]:
    """Identity of each row; None if its id is not unique outside its file."""
    if part.layout.family is None or "item_id" not in part.table.column_names:
        return [None] * part.table.num_rows
    return [(part.layout.family, name) if name else None for name in part.table["item_id"].to_pylist()]


def find_cross_benchmark_duplicates(
    config: PoolConfig, guides: list[MappedTable], tests: list[MappedTable], language: str
) -> set[ItemIdentity]:
    """Test items that are in the guide set under the id of another benchmark.

    Only Global-MMLU and MMLU-ProX are compared, by their English parts. Without English parts nothing is found.
    """
    families = ({part.layout.family for part in parts} - {None} for parts in (guides, tests))
    if set().union(*(sides := [*families])) != {"MMLU", "MMLU-Pro"} or sides[0] == sides[1] or language == "en":
        return set()
    known = {each for part in guides for each in item_identities(part)}
    try:
        guide_parts, test_parts = (load_parts(source, ("prompt",), "en") for source in (config.guides, config.tests))
    except ConfigError:
        return set()
    texts = {text for text, identity in _texts_of_mmlu_items(guide_parts) if identity in known}
    return {identity for text, identity in _texts_of_mmlu_items(test_parts) if text in texts}


def _texts_of_mmlu_items(parts: Iterable[MappedTable]) -> list[tuple[tuple[str, str], ItemIdentity]]:
    """MMLU subject and text key, and identity, of each row that is an MMLU item."""
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
