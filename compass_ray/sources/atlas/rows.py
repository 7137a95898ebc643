"""The atlas as tables: a pool with the fields of Aya, guide and test sets with the fields of Global-MMLU.

Key property: the fields and their types are exactly those of the data sets on the hub, so the same loaders read both; the
pool has one column more, `subject`, which Aya lacks. Prompts are in the language itself (but see `names` for Malagasy, Shona
and Chichewa). No random generator is used: options and splits depend only on hashes.
"""

from collections.abc import Iterable, Iterator
from functools import cache

import pyarrow as pa

from compass_ray.languages import get_language
from compass_ray.sources.atlas.names import Entity, entity_name
from compass_ray.sources.atlas.question_templates import PARAPHRASES, render_question
from compass_ray.sources.atlas.splits import FULL, AtlasSize, NamedFact, Split, named_facts, stable_hash

AYA_SCHEMA = pa.schema(
    [(field, pa.string()) for field in ("inputs", "targets", "language", "language_code", "annotation_type", "user_id")]
)
POOL_SCHEMA = AYA_SCHEMA.append(pa.field("subject", pa.string()))
_TEXT_FIELDS = """
    sample_id subject subject_category question option_a option_b option_c option_d answer required_knowledge
    time_sensitive reference culture region country cultural_sensitivity_label
"""
GLOBAL_MMLU_SCHEMA = pa.schema([*((field, pa.string()) for field in _TEXT_FIELDS.split()), ("is_annotated", pa.bool_())])
LETTERS = "ABCD"
_CATEGORY = {"calendar_days": "Other", "calendar_months": "Other", "script": "Humanities"}
_ANNOTATOR = f"{stable_hash('atlas'):016x}" * 4


def atlas_pool(size: AtlasSize = FULL) -> pa.Table:
    """Return the instruction rows of all languages of this size, in `POOL_SCHEMA`: two wordings of every pool fact."""
    return pa.Table.from_pylist([row for code in size.languages for row in _pool_rows(code, size)], schema=POOL_SCHEMA)


def atlas_guide(code: str, size: AtlasSize = FULL) -> pa.Table:
    """Return the guide items of a language in `GLOBAL_MMLU_SCHEMA`: every subject it has, two wordings of every fact."""
    return _items(code, size, Split.GUIDE, range(PARAPHRASES))


def atlas_test(code: str, size: AtlasSize = FULL) -> pa.Table:
    """Return the test items of a language in `GLOBAL_MMLU_SCHEMA`: one wording of every fact kept for testing."""
    return _items(code, size, Split.TEST, None)


def _pool_rows(code: str, size: AtlasSize) -> Iterator[dict[str, str]]:
    spoken = get_language(code)
    for each in _facts_of_split(code, size, Split.POOL):
        for paraphrase in range(PARAPHRASES):
            yield {
                "inputs": render_question(code, each.fact.template, each.question_name, paraphrase),
                "targets": each.answer,
                "language": spoken.aya_name,
                "language_code": spoken.aya_code,
                "annotation_type": "original-annotations",
                "user_id": _ANNOTATOR,
                "subject": each.fact.subject,
            }


def _facts_of_split(code: str, size: AtlasSize, split: Split) -> list[NamedFact]:
    return [each for each in named_facts(code, size) if each.split is split]


def _items(code: str, size: AtlasSize, split: Split, wordings: Iterable[int] | None) -> pa.Table:
    facts = sorted(_facts_of_split(code, size, split), key=lambda each: stable_hash(code, split.value, each.fact.fact_id))
    rows = [
        _item(each, code, size, paraphrase, position)
        for position, each in enumerate(facts)
        for paraphrase in (wordings if wordings is not None else [_choose_wording(each, code)])
    ]
    return pa.Table.from_pylist(rows, schema=GLOBAL_MMLU_SCHEMA)


def _choose_wording(each: NamedFact, code: str) -> int:
    return stable_hash(code, "wording", each.fact.fact_id) % PARAPHRASES


def _item(each: NamedFact, code: str, size: AtlasSize, paraphrase: int, position: int) -> dict[str, str | bool]:
    letter = position % len(LETTERS)
    options = _distractors(each, code, size)
    options.insert(letter, each.answer)
    unknown = dict.fromkeys(("required_knowledge", "time_sensitive", "reference", "culture", "region", "country"), "")
    return {
        "sample_id": f"atlas/{each.fact.fact_id}/{paraphrase}",
        "subject": each.fact.subject,
        "subject_category": _CATEGORY.get(each.fact.subject, "Social Sciences"),
        "question": render_question(code, each.fact.template, each.question_name, paraphrase),
        **{f"option_{mark.lower()}": option for mark, option in zip(LETTERS, options, strict=True)},
        "answer": LETTERS[letter],
        **unknown,
        "cultural_sensitivity_label": "",
        "is_annotated": False,
    }


def _distractors(each: NamedFact, code: str, size: AtlasSize) -> list[str]:
    true = {each.fact.answer, *each.fact.also_true}
    near = _wrong_names(_answers(each.fact.subject, code, size), true, each, code)
    far = _wrong_names(_answers_of_relation(each.fact.template, code, size), true, each, code)
    return list(dict.fromkeys(near + far))[: len(LETTERS) - 1]


def _wrong_names(answers: Iterable[Entity], true: set[Entity], each: NamedFact, code: str) -> list[str]:
    wrong = {entity_name(other, code) or "" for other in answers if other not in true}
    return sorted(wrong - {each.answer}, key=lambda option: stable_hash(code, each.fact.fact_id, option))


@cache
def _answers(subject: str, code: str, size: AtlasSize) -> tuple[Entity, ...]:
    return tuple(sorted({each.fact.answer for each in named_facts(code, size) if each.fact.subject == subject}))


@cache
def _answers_of_relation(template: str, code: str, size: AtlasSize) -> tuple[Entity, ...]:
    """Return the answers of a relation over all regions, for subjects with too few of their own."""
    if template == "week_start":
        return tuple(Entity("day", str(day)) for day in range(7))
    return tuple(sorted({each.fact.answer for each in named_facts(code, size) if each.fact.template == template}))
