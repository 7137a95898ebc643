"""Texts of known language for the benchmark of the router, and an identifier trained on some of them.

Test texts are not only from the source of the training texts: sentences of translated news (`ntrex`) are in no training text
of the identifier.
"""

from __future__ import annotations

import lzma
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compass_ray.config import IdentifierConfig
from compass_ray.core.seeds import generator
from compass_ray.languages import GLOBAL_MMLU, from_aya, get_language
from compass_ray.models.language_id import LanguageIdentifier
from compass_ray.models.tiny.language_id import THREADS
from compass_ray.sources.atlas import SMALL, atlas_pool, atlas_test

Texts = Mapping[str, Sequence[str]]
"""By language."""

LENGTHS = {"3_words": 3, "10_words": 10, "whole": None}
UNSPACED = 2
"""Characters that count as a word in scripts without spaces (Chinese, Japanese)."""


@dataclass(frozen=True)
class Corpora:
    """Training texts, test texts of the same source and of another source, and texts in other languages."""

    learnt: Texts
    lines: Texts
    sentences: Texts
    strangers: Texts


def shared_corpora(folder: Path, languages: Sequence[str], *, learnt: int, judged: int, seed: int) -> Corpora:
    """`lm_text` of the folder (training and test part), `ntrex`, and prompts of the pool in other languages."""
    lines = {code: _draw(_lines(folder / "lm_text" / f"{code}.txt.xz"), judged + learnt, seed, code) for code in languages}
    return Corpora(
        learnt={code: found[judged:] for code, found in lines.items()},
        lines={code: found[:judged] for code, found in lines.items()},
        sentences={code: _draw(_lines(folder / "ntrex" / f"{code}.txt.xz"), judged, seed, code) for code in languages},
        strangers={code: _draw(found, judged, seed, code) for code, found in _others(folder, languages).items()},
    )


def atlas_corpora(languages: Sequence[str], strangers: Sequence[str], judged: int) -> Corpora:
    """The same from the small data set of the package, only to test the benchmark."""
    rows = atlas_pool(SMALL).to_pylist()
    pool = {code: [row["inputs"] for row in rows if from_aya(row["language_code"]) == code] for code in (*languages, *strangers)}
    return Corpora(
        learnt={code: pool[code][judged:] for code in languages},
        lines={code: pool[code][:judged] for code in languages},
        sentences={code: atlas_test(code, SMALL)["question"].to_pylist()[:judged] for code in languages},
        strangers={code: pool[code][:judged] for code in strangers},
    )


def first_words(text: str, words: int | None, code: str) -> str:
    """The first words of a text; all of it for None.

    >>> first_words("Mji mkuu wa Kenya", 3, "sw"), first_words("肯尼亚的首都", 2, "zh")
    ('Mji mkuu wa', '肯尼亚的')
    """
    if words is None:
        return text
    return text[: words * UNSPACED] if code in ("ja", "zh") else " ".join(text.split()[:words])


def train_identifier(texts: Texts, *, seed: int) -> LanguageIdentifier:
    """Train a fastText identifier with GlotLID's labels, on every text and on its first three words.

    Accuracy on the first three words of other sentences is 89%, and 78% without the short texts in training.
    """
    import fasttext

    lines = [
        f"__label__{get_language(code).glotlid[0]} {first_words(' '.join(text.split()), words, code)}"
        for code, found in texts.items()
        for text in found
        for words in (None, LENGTHS["3_words"])
    ]
    with tempfile.TemporaryDirectory() as scratch:
        file, made = Path(scratch) / "train.txt", Path(scratch) / "model.bin"
        file.write_text("\n".join(_draw(lines, len(lines), seed, "lines")), "utf-8")
        # The settings of the package's identifier, with more buckets for the n-grams of longer texts.
        model = fasttext.train_supervised(
            str(file), dim=32, lr=0.5, epoch=5, minn=1, maxn=4, bucket=200_000, thread=THREADS, seed=seed, verbose=0
        )
        model.save_model(str(made))
        return LanguageIdentifier(IdentifierConfig(model=str(made)))


def data_folder() -> Path:
    """The folder of `COMPASS_SHARED_DATA`.

    Raises:
        SystemExit: the variable is not set.
    """
    given = os.environ.get("COMPASS_SHARED_DATA")
    if not given:
        raise SystemExit("COMPASS_SHARED_DATA is not set; set it to the folder of texts, or use --small")
    return Path(given)


def _lines(file: Path) -> list[str]:
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        return [line.strip() for line in lines if line.strip()]


def _others(folder: Path, languages: Sequence[str]) -> dict[str, list[str]]:
    import pyarrow.parquet as pq

    table = pq.read_table(next((folder / "aya_dataset" / "data").glob("train-*.parquet")), columns=["inputs", "language_code"])
    found: dict[str, list[str]] = {}
    for text, aya in zip(*(table[name].to_pylist() for name in ("inputs", "language_code")), strict=True):
        if (code := from_aya(aya)) not in GLOBAL_MMLU and code not in languages:
            found.setdefault(code, []).append(text)
    return dict(sorted(found.items()))


def _draw(texts: Sequence[str], limit: int, seed: int, name: str) -> list[str]:
    return [texts[i] for i in generator(seed, "router", name).permutation(len(texts))[:limit]]
