"""Words of any script, their character n-grams, and hashed counts of words and word pairs.

No model and no dictionary. In scripts without spaces between words each character is a word, so word pairs are character
pairs. Hashes are MurmurHash3, equal in every process. For the text-based baselines of COMPASS, section 4.3.
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
"""Characters of an n-gram; the start and the end of a word count as one character each."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_TOKEN = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]+|[^\p{{L}}\p{{M}}\p{{N}}_\s]+", regex.V1
)


def split_words(text: str) -> list[str]:
    """Words and runs of punctuation of a text, in order, NFKC-normalized and casefolded.

    >>> split_words("Dar es Salaam?"), split_words("首都は?"), split_words("राजधानी है")
    (['dar', 'es', 'salaam', '?'], ['首', '都', 'は', '?'], ['राजधानी', 'है'])
    """
    return [str(token) for token in _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())]


def character_ngrams(word: str) -> set[str]:
    """Runs of four characters of a word with its ends marked; the word itself if it is shorter.

    >>> sorted(character_ngrams("mji")), sorted(character_ngrams("miji"))
    (['<mji', 'mji>'], ['<mij', 'iji>', 'miji'])
    """
    framed = f"<{word}>"
    return {framed[i : i + NGRAM_CHARACTERS] for i in range(max(len(framed) - NGRAM_CHARACTERS + 1, 1))}


def build_corpus(prompts: Iterable[str]) -> Corpus:
    """Corpus statistics of one language's prompts, for ranking transfer languages."""
    counts: Counter[str] = Counter()
    rows = 0
    for prompt in prompts:
        counts.update(split_words(prompt))
        rows += 1
    return Corpus(
        rows, counts.total(), frozenset(counts), frozenset(ngram for word in counts for ngram in character_ngrams(word))
    )


def hashed_ngram_counts(prompts: Sequence[str]) -> Any:
    """Counts of words and word pairs in 10,000 hashed buckets: scipy CSR float64 (n, 10000)."""
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
