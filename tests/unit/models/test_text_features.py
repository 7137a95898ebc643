"""Words of scripts with and without spaces, and hashed counts against counting by hand."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from sklearn.utils import murmurhash3_32

from compass_ray.models.text_features import NUM_BUCKETS, build_corpus, character_ngrams, hashed_ngram_counts, split_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mji mkuu wa Kenya ni upi?", ["mji", "mkuu", "wa", "kenya", "ni", "upi", "?"]),
        ("केन्या की राजधानी", ["केन्या", "की", "राजधानी"]),
        ("日本の首都?", ["日", "本", "の", "首", "都", "?"]),
        ("2024年のNHK", ["2024", "年", "の", "nhk"]),
        ("ເມືອງ", ["ເ", "ມື", "ອ", "ງ"]),
        ("ሀገር፣ አገር", ["ሀገር", "፣", "አገር"]),
        ("Ｆｕｌｌ", ["full"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert split_words(text) == expected


def test_character_ngrams_include_the_ends_of_a_word() -> None:
    assert character_ngrams("kenya") == {"<ken", "keny", "enya", "nya>"}
    assert character_ngrams("a") == {"<a>"}


def test_a_corpus_counts_words_and_ngrams() -> None:
    found = build_corpus(["wa wa Kenya", "wa?"])
    assert (found.rows, found.tokens, found.words) == (2, 5, frozenset({"wa", "kenya", "?"}))
    assert found.ttr == 3 / 5
    assert found.pieces == character_ngrams("wa") | character_ngrams("kenya") | character_ngrams("?")


def test_counts_are_those_of_words_and_pairs_by_hand() -> None:
    texts = ["Mji mkuu wa Kenya wa", "首都は首都", ""]
    found = hashed_ngram_counts(texts)
    assert found.shape == (3, NUM_BUCKETS)
    for row, text in zip(found.toarray(), texts, strict=True):
        each = split_words(text)
        grams = [*each, *(f"{a} {b}" for a, b in pairwise(each))]
        expected = Counter(abs(int(murmurhash3_32(gram, seed=0))) % NUM_BUCKETS for gram in grams)
        assert {int(i): int(row[i]) for i in np.flatnonzero(row)} == expected


def test_hashes_are_the_same_in_another_process() -> None:
    code = (
        "from compass_ray.models.text_features import hashed_ngram_counts; "
        "print(hashed_ngram_counts(['mji mkuu']).indices.tolist())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1", "PATH": ""}
    )
    assert other.stdout == f"{hashed_ngram_counts(['mji mkuu']).indices.tolist()}\n"
