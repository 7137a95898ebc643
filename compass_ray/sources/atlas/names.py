"""What a thing is called in each language: names from Unicode CLDR through Babel.

Key property: a name is a function of (entity, language) alone, whichever locales were read before. Babel shares alias
structures between locales, and stand-alone month and day names come out in another language once several locales are loaded
in one process; the `format` names used here do not.

CLDR holds territories, languages, currencies and zone cities for 39 of the 42 languages. Malagasy (mg) and Shona (sn) have
territories and some languages and currencies but no scripts, sub-regions or cities; Chichewa (ny) has months and days only.
For these three, English names stand in for what is missing, as their speakers often write them; their questions are in the
language itself. For every other language a missing name is missing, and the fact is not asked there.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from babel.core import Locale

from compass_ray.sources.atlas.geography import CURRENCY_UNITS

Kind = Literal["territory", "subregion", "city", "language", "script", "unit", "month", "day"]

ENGLISH_STANDS_IN = frozenset({"mg", "ny", "sn"})
_LATIN_SCRIPT = "cs de en es fil fr ha id ig it lt mg ms nl ny pl pt ro sn so sv sw tr vi yo"
_LATIN = frozenset(_LATIN_SCRIPT.split())
_SPACELESS = frozenset({"zh"})
_SHARED_BY_MOST = 0.5
_ENDING_SHARED_BY = 0.75


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A thing with a name in many languages: its kind and its CLDR code (a zone id for a city, 1..12 for a month)."""

    kind: Kind
    code: str


def entity_name(entity: Entity, code: str) -> str | None:
    """Return the entity's name in the language with that code, or None where CLDR has none.

    >>> entity_name(Entity("territory", "KE"), "ru")
    'Кения'
    """
    own = _own_name(entity, code)
    if own is None and code in ENGLISH_STANDS_IN:
        return _own_name(entity, "en")
    return own


@cache
def _own_name(entity: Entity, code: str) -> str | None:
    if entity.kind == "unit":
        return _unit_name(entity.code, code)
    found = _lookup(entity, Locale.parse(code))
    if found is None and entity.kind == "city" and code in _LATIN:
        found = _lookup(entity, Locale.parse("en")) or entity.code.rsplit("/", 1)[-1].replace("_", " ")
    return None if found is None else str(found)


def _lookup(entity: Entity, locale: Locale) -> Any:
    match entity.kind:
        case "territory" | "subregion":
            return locale.territories.get(entity.code)
        case "language":
            return locale.languages.get(entity.code)
        case "script":
            return locale.scripts.get(entity.code)
        case "city":
            return locale.time_zones.get(entity.code, {}).get("city")
        case "month":
            return locale.months["format"]["wide"].get(int(entity.code))
        case _:
            return locale.days["format"]["wide"].get(int(entity.code))


def _unit_name(unit: str, code: str) -> str | None:
    names = _currency_names(unit, code)
    if unit == "euro":
        return names[0] if names else None
    if len(names) < 2:
        return None
    return _shared_ending(names) if code in _SPACELESS else _shared_word(names, unit, code)


def _currency_names(unit: str, code: str) -> list[str]:
    known = Locale.parse(code).currencies
    return [str(known[each]) for each in CURRENCY_UNITS[unit].split() if each in known]


def _shared_word(names: list[str], unit: str, code: str) -> str | None:
    counts = Counter(word for each in names for word in set(_words(each)))
    elsewhere = _words_of_other_units(unit, code)
    enough = max(2.0, _SHARED_BY_MOST * len(names))
    shared = [word for word, n in counts.items() if n >= enough and word.lower() not in elsewhere]
    return max(shared, key=lambda word: (counts[word], len(word), word), default=None)


@cache
def _words_of_other_units(unit: str, code: str) -> frozenset[str]:
    others = (each for each in CURRENCY_UNITS if each not in {unit, "euro"})
    repeated: Counter[str] = Counter()
    for other in others:
        repeated.update({word.lower() for each in _currency_names(other, code) for word in _words(each)})
    return frozenset(word for word, n in repeated.items() if n > 1)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s\-‐‑/()\[\]]+", text) if word]


def _shared_ending(names: list[str]) -> str | None:
    endings = Counter(each[-size:] for each in names for size in range(1, 5))
    enough = max(2.0, _ENDING_SHARED_BY * len(names))
    shared = [ending for ending, n in endings.items() if n >= enough]
    return max(shared, key=lambda ending: (len(ending), endings[ending], ending), default=None)
