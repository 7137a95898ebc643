"""Training examples of the small base model: names and questions in every language, but no facts of the atlas.

Three kinds of example, in the wording and chat format of the pool: a name to its code, a code to its name in the language of
the question, and a question to the codes of its relation and its entity. Questions of the third kind combine a relation with
an entity of any kind ("Sunday – currency?"), so they contain no fact and no answer of the atlas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compass_ray.languages import GLOBAL_MMLU
from compass_ray.models.tiny.tokenizer import entity_code, known_entities, relation_code
from compass_ray.sources.atlas.names import Entity, entity_name
from compass_ray.sources.atlas.question_templates import render_question, template_names

KEYWORD_SHARE = 0.6
"""Fraction of examples with the short wording; at equal cost it shows a third more names than the full question."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """One prompt and the response to learn."""

    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class Spelling:
    """The name of an entity in one language."""

    language: str
    entity: Entity
    written: str


def list_spellings() -> list[Spelling]:
    """Return every name of every entity in every language."""
    pairs = [(code, entity, entity_name(entity, code)) for code in GLOBAL_MMLU for entity in known_entities()]
    return [Spelling(code, entity, written) for code, entity, written in pairs if written is not None]


def name_to_code(each: Spelling, paraphrase: int) -> TrainingExample:
    """Ask for the code of a name."""
    return TrainingExample(render_question(each.language, "code", each.written, paraphrase), entity_code(each.entity))


def code_to_name(each: Spelling, paraphrase: int) -> TrainingExample:
    """Ask for the name of a code, in the language of the question."""
    return TrainingExample(render_question(each.language, "name", entity_code(each.entity), paraphrase), each.written)


def question_to_codes(each: Spelling, template: str, paraphrase: int, *, entity_first: bool) -> TrainingExample:
    """Ask a question about a relation, answered by the codes of its relation and its entity, in either order."""
    codes = [relation_code(template), entity_code(each.entity)]
    return TrainingExample(
        render_question(each.language, template, each.written, paraphrase), "".join(reversed(codes) if entity_first else codes)
    )


def make_epoch_examples(known: list[Spelling], rng: np.random.Generator) -> list[TrainingExample]:
    """Return one example of each kind for every spelling, shuffled."""
    relations = [each for each in template_names() if each not in {"code", "name"}]
    examples: list[TrainingExample] = []
    for each in known:
        first, second, third = (rng.random(3) < KEYWORD_SHARE).astype(int).tolist()
        template = relations[int(rng.integers(len(relations)))]
        examples.append(name_to_code(each, first))
        examples.append(code_to_name(each, second))
        examples.append(question_to_codes(each, template, third, entity_first=bool(rng.random() < 0.5)))
    return [examples[index] for index in rng.permutation(len(examples))]
