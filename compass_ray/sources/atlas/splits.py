"""Facts that each language asks, and their split into pool, guide set and test set.

Key property: a test fact of a language is in no row of its pool, in either direction of the relation, but in the pools of
most other languages. That is the transfer under test. The split depends only on hashes of language and fact, so it is the
same on every machine.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

from compass_ray.languages import GLOBAL_MMLU, get_language
from compass_ray.sources.atlas.facts import Fact, facts
from compass_ray.sources.atlas.guessability import is_guessable
from compass_ray.sources.atlas.names import entity_name

POOL_SHARE = 0.45
GUIDE_SHARE = 0.10


class Split(Enum):
    """The three uses of a fact in one language."""

    POOL = "pool"
    GUIDE = "guide"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class AtlasSize:
    """How much of the atlas to take: its languages, and how many facts of each subject."""

    languages: tuple[str, ...]
    facts_per_subject: int


FULL = AtlasSize(languages=GLOBAL_MMLU, facts_per_subject=20)
SMALL = AtlasSize(languages=("am", "ar", "el", "en", "hi", "ko", "ru", "sw"), facts_per_subject=8)
"""For tests: eight languages of eight scripts."""


@dataclass(frozen=True, slots=True)
class NamedFact:
    """A fact in one language: the names of both entities, and its split."""

    fact: Fact
    question_name: str
    answer: str
    split: Split


def stable_hash(*parts: object) -> int:
    """Hash the parts to 64 bits, the same in every process."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@cache
def named_facts(code: str, size: AtlasSize = FULL) -> tuple[NamedFact, ...]:
    """Facts that language `code` asks: both entities have names, and the answer is not guessable.

    Raises UnknownLanguageError for an unknown code, ValueError for a language outside this size.
    """
    if get_language(code).code not in size.languages:
        raise ValueError(f"language {code!r} is not in this size of the atlas: expected one of {', '.join(size.languages)}")
    named = [
        each
        for each in facts(size.facts_per_subject)
        if entity_name(each.question_entity, code) and entity_name(each.answer, code)
    ]
    asked = [each for each in named if not _is_guessable_fact(each, named, code)]
    split = _assign_splits(asked, code)
    return tuple(
        NamedFact(
            each, entity_name(each.question_entity, code) or "", entity_name(each.answer, code) or "", split[each.knowledge]
        )
        for each in asked
    )


def _is_guessable_fact(fact: Fact, among: Sequence[Fact], code: str) -> bool:
    answers = {entity_name(each.answer, code) or "" for each in among if each.subject == fact.subject}
    own = entity_name(fact.answer, code) or ""
    return is_guessable(entity_name(fact.question_entity, code) or "", own, answers - {own}, code)


def _assign_splits(asked: Sequence[Fact], code: str) -> dict[str, Split]:
    groups: dict[str, list[str]] = {}
    for each in asked:
        if all(each.knowledge not in group for group in groups.values()):
            groups.setdefault(each.subject, []).append(each.knowledge)
    return {key: place for group in groups.values() for key, place in _split_group(group, code).items()}


def _split_group(group: list[str], code: str) -> dict[str, Split]:
    ordered = sorted(group, key=lambda key: stable_hash(code, key))
    guide = max(1, round(GUIDE_SHARE * len(ordered)))
    pool = guide + round(POOL_SHARE * len(ordered))
    places = [Split.GUIDE] * guide + [Split.POOL] * (pool - guide) + [Split.TEST] * (len(ordered) - pool)
    return dict(zip(ordered, places, strict=True))
