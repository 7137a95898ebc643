"""Words of any script, the pieces they are made of, and hashed counts of words and of pairs of words.

Key property: no model and no dictionary. Where a script puts no spaces between words, each character stands for a word, so
pairs of words are pairs of characters. Hashes are MurmurHash3, equal in every process. COMPASS, section 4.3, for the
baselines that look at texts. Not a tokenizer of a model.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import regex

from compass_ray.core.baselines.transfer_ranking import Corpus

NUM_BUCKETS = 10_000
NGRAM_CHARACTERS = 4
"""Characters of a piece of a word, its two ends counting as one character each."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_TOKEN = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]+|[^\p{{L}}\p{{M}}\p{{N}}_\s]+", regex.V1
)


def split_words(text: str) -> list[str]:
    """Words and runs of marks in a text, in its order, normalised (NFKC) and without case.

    >>> split_words("Dar es Salaam?"), split_words("首都は?"), split_words("राजधानी है")
    (['dar', 'es', 'salaam', '?'], ['首', '都', 'は', '?'], ['राजधानी', 'है'])
    """
    return [str(found) for found in _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())]


def character_ngrams(word: str) -> set[str]:
    """Runs of four characters of a word between its ends; the word itself where it is shorter.

    >>> sorted(character_ngrams("mji")), sorted(character_ngrams("miji"))
    (['<mji', 'mji>'], ['<mij', 'iji>', 'miji'])
    """
    framed = f"<{word}>"
    return {framed[i : i + NGRAM_CHARACTERS] for i in range(max(len(framed) - NGRAM_CHARACTERS + 1, 1))}


def build_corpus(prompts: Iterable[str]) -> Corpus:
    """What a ranker of transfer languages looks at in one language's prompts."""
    counts: Counter[str] = Counter()
    rows = 0
    for prompt in prompts:
        counts.update(split_words(prompt))
        rows += 1
    return Corpus(
        rows, counts.total(), frozenset(counts), frozenset(piece for word in counts for piece in character_ngrams(word))
    )


def hashed_ngram_counts(prompts: Sequence[str]) -> Any:
    """Counts of words and pairs of words in 10,000 hashed buckets: scipy CSR float64 (n, 10000)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        n_features=NUM_BUCKETS,
        tokenizer=split_words,
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, 2),
        alternate_sign=False,
        norm=None,
    )
    return vectorizer.transform(prompts)
