"""The tokenizer of the small base model: one token per name, one per code, byte-level BPE for other text.

A name of the atlas is one token and any text can be encoded, so a model of two million parameters reads every script. It is a
Qwen2 tokenizer, because transformers loads that class, with its own pre-tokenization, for every Qwen2 model, whatever the
directory says. Names are added tokens, which this does not affect. It is not made to compress other text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from compass_ray.languages import GLOBAL_MMLU
from compass_ray.sources.atlas.facts import entities, facts
from compass_ray.sources.atlas.names import Entity, entity_name
from compass_ray.sources.atlas.question_templates import PARAPHRASES, render_question, template_names
from compass_ray.sources.atlas.splits import FULL

PAD, END, USER, ASSISTANT, SYSTEM = (f"<|{each}|>" for each in ("pad", "end", "user", "assistant", "system"))
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
BPE_VOCABULARY = 3_500
"""Size of the byte-level BPE, the words of questions. More would enlarge the package and hardly shorten a question."""


def known_entities() -> tuple[Entity, ...]:
    """Return every entity of the atlas."""
    return entities(facts(FULL.facts_per_subject))


def entity_code(entity: Entity) -> str:
    """Return the code of an entity, one token, the same in all languages.

    >>> entity_code(Entity("territory", "KE")), entity_code(Entity("month", "3"))
    ('[KE]', '[M03]')
    """
    match entity.kind:
        case "city":
            return f"[{entity.code.rsplit('/', 1)[-1]}]"
        case "month":
            return f"[M{int(entity.code):02d}]"
        case "day":
            return f"[D{entity.code}]"
        case _:
            return f"[{entity.code}]"


def relation_code(template: str) -> str:
    """Return the code of the relation that a question asks for: one token."""
    return f"[?{template}]"


def make_tokenizer() -> Any:
    """Return the tokenizer of the atlas (a `Qwen2Tokenizer`); deterministic."""
    tokenizer = train_tokenizer(_questions(), BPE_VOCABULARY)
    tokenizer.add_tokens([_added_token(each, is_name=False) for each in _codes()])
    tokenizer.add_tokens([_added_token(each, is_name=True) for each in dict.fromkeys(_names())])
    return tokenizer


def train_tokenizer(texts: Iterable[str], size: int) -> Any:
    """Return a `Qwen2Tokenizer` with the chat template: byte-level BPE of `size` tokens, trained on `texts`; deterministic."""
    from transformers import Qwen2Tokenizer

    bpe = _train_bpe(texts, size)
    tokenizer: Any = Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(each) for each in bpe["merges"]],
        pad_token=PAD,
        eos_token=END,
        unk_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Save it for `AutoTokenizer`. The JSON file is written without indentation, which saves a third."""
    tokenizer.save_pretrained(str(directory))
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _train_bpe(texts: Iterable[str], size: int) -> dict[str, Any]:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    model: dict[str, Any] = json.loads(learner.to_str())["model"]
    return model


def _added_token(text: str, *, is_name: bool) -> AddedToken:
    return AddedToken(text, single_word=is_name, lstrip=is_name, normalized=False, special=False)


def _codes() -> list[str]:
    return [*map(entity_code, known_entities()), *map(relation_code, template_names())]


def _names() -> Iterator[str]:
    for code in GLOBAL_MMLU:
        yield from (written for entity in known_entities() if (written := entity_name(entity, code)) is not None)


def _questions() -> Iterator[str]:
    for code in GLOBAL_MMLU:
        for template in template_names():
            for paraphrase in range(PARAPHRASES):
                yield render_question(code, template, "", paraphrase)
