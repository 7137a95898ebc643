"""What the small base model is taught: to read names and questions in every language, and none of the atlas's facts.

Key property: three kinds of lesson, in the very wording and chat format of the pool. A name to its code; a code to its name
in the language asked; a question to the codes of what it asks and of whom. The questions of the third kind join a relation
to an entity of any kind ("Sunday – currency?"), so they hold no fact and no answer of the atlas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compass_ray.languages import GLOBAL_MMLU
from compass_ray.models.tiny.vocabulary import entity_code, known_entities, relation_code
from compass_ray.sources.atlas.names import Entity, name
from compass_ray.sources.atlas.wording import question, templates

KEYWORD_SHARE = 0.6
"""Share of lessons in the short wording: at equal cost it shows a third more names than the full question."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt and the response to learn."""

    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class Spelling:
    """An entity as one language writes it."""

    language: str
    entity: Entity
    written: str


def spellings() -> list[Spelling]:
    """Return every name of every entity in every language."""
    pairs = [(code, entity, name(entity, code)) for code in GLOBAL_MMLU for entity in known_entities()]
    return [Spelling(code, entity, written) for code, entity, written in pairs if written is not None]


def read_name(each: Spelling, paraphrase: int) -> Lesson:
    """Ask for the code of a name."""
    return Lesson(question(each.language, "code", each.written, paraphrase), entity_code(each.entity))


def write_name(each: Spelling, paraphrase: int) -> Lesson:
    """Ask for the name of a code, in the language of the question."""
    return Lesson(question(each.language, "name", entity_code(each.entity), paraphrase), each.written)


def parse_question(each: Spelling, template: str, paraphrase: int, *, entity_first: bool) -> Lesson:
    """Ask a question of some relation, to be answered by the codes of its relation and its entity, in either order."""
    codes = [relation_code(template), entity_code(each.entity)]
    return Lesson(
        question(each.language, template, each.written, paraphrase), "".join(reversed(codes) if entity_first else codes)
    )


def round_of_lessons(known: list[Spelling], rng: np.random.Generator) -> list[Lesson]:
    """Return one lesson of each kind for every spelling, shuffled."""
    asked = [each for each in templates() if each not in {"code", "name"}]
    lessons: list[Lesson] = []
    for each in known:
        first, second, third = (rng.random(3) < KEYWORD_SHARE).astype(int).tolist()
        template = asked[int(rng.integers(len(asked)))]
        lessons.append(read_name(each, first))
        lessons.append(write_name(each, second))
        lessons.append(parse_question(each, template, third, entity_first=bool(rng.random() < 0.5)))
    return [lessons[index] for index in rng.permutation(len(lessons))]
