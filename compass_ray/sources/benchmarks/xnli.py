"""XNLI as items with three options: does the first sentence entail the second (COMPASS, section 4.1).

Key property: the words for the three labels are in the language of the item. The wording is this project's own, so
accuracies are comparable between methods of a run, but not with published ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from compass_ray.config import ConfigError
from compass_ray.sources.text_columns import text_column

_WORDS: Mapping[str, tuple[str, str, str]] = {
    "ar": ("نعم", "ربما", "لا"),
    "de": ("Ja", "Vielleicht", "Nein"),
    "el": ("Ναι", "Ίσως", "Όχι"),
    "en": ("Yes", "Maybe", "No"),
    "es": ("Sí", "Quizás", "No"),
    "fr": ("Oui", "Peut-être", "Non"),
    "hi": ("हाँ", "शायद", "नहीं"),
    "ru": ("Да", "Возможно", "Нет"),
    "sw": ("Ndiyo", "Labda", "Hapana"),
    "th": ("ใช่", "อาจจะ", "ไม่ใช่"),
    "tr": ("Evet", "Belki", "Hayır"),
    "ur": ("ہاں", "شاید", "نہیں"),
    "vi": ("Có", "Có thể", "Không"),
    "zh": ("是", "可能", "否"),
}
"""Entailment (label 0), neutral (1) and contradiction (2) in words, in the 14 languages of XNLI that we have (not Bulgarian)."""

_LETTERS = {"0": "A", "1": "B", "2": "C"}


def to_items(table: pa.Table, language: str | None) -> pa.Table:
    """Columns prompt, option_a to option_c and answer (a letter) of a table with premise, hypothesis and label (0, 1 or 2).

    Raises:
        ConfigError: a language that is not in XNLI, or an unknown label.
    """
    words = _WORDS.get(language or "")
    if words is None:
        raise ConfigError(f"XNLI has no {language!r}; it has {', '.join(_WORDS)}; set other languages or another test set")
    premises, hypotheses, labels = (text_column(table, name, "XNLI").to_pylist() for name in ("premise", "hypothesis", "label"))
    pairs = zip(premises, hypotheses, strict=True)
    columns = {name: [word] * table.num_rows for name, word in zip("abc", words, strict=True)}
    return pa.table(
        {
            "prompt": pa.array([_question(premise, hypothesis) for premise, hypothesis in pairs], pa.string()),
            **{f"option_{name}": pa.array(repeated, pa.string()) for name, repeated in columns.items()},
            "answer": pa.array([_answer_letter(label) for label in labels], pa.string()),
        }
    )


def _question(premise: str | None, hypothesis: str | None) -> str | None:
    return f"{premise}\n⇒ {hypothesis}?" if premise and hypothesis else None


def _answer_letter(label: str | None) -> str:
    if label not in _LETTERS:
        raise ConfigError(f"XNLI: label {label} is not 0, 1 or 2; remove such rows with pool.tests.exclude: {{label: ['-1']}}")
    return _LETTERS[label]
