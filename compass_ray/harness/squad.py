"""Exact match and F1 of an extracted answer, as SQuAD's evaluation defines them.

lm-evaluation-harness calls `process_results` for each item.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The metrics of one reply against the first accepted answer of an item."""
    answer, reply = normalize(doc["answers"]["text"][0]), normalize(results[0])
    return {"exact_match": float(answer == reply), "f1": word_f1(answer.split(), reply.split())}


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and repeated spaces.

    >>> normalize("The  Beyoncé-era, a hit!")
    'beyoncéera hit'
    """
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def word_f1(answer: Sequence[str], reply: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the words; 1 if both have none.

    >>> word_f1(["red", "car"], ["red", "bus", "car", "now"])
    0.6666666666666666
    """
    if not answer or not reply:
        return float(answer == reply)
    common = (Counter(answer) & Counter(reply)).total()
    return 2 * common / (len(answer) + len(reply))
