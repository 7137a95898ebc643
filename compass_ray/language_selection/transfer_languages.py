"""Rows of the best transfer languages: by similarity (LangSim) or by a ranker (LangRank). COMPASS, section 4.3.

Key property: a language without vectors is never taken by similarity, and the record names it; a ranker takes what is not
known for unknown. No transfer to or from the target itself is shown to the ranker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray.config import ConfigError
from compass_ray.core.baselines.language_similarity import best
from compass_ray.core.baselines.picking import AlikeAmong, AllAmong
from compass_ray.core.baselines.transfer_ranking import features, measured
from compass_ray.language_selection.asked import Asked, Baseline
from compass_ray.models.ranker import TransferRanker, without_target
from compass_ray.sources.typology import Transfers, language_vectors, read_transfers, vectors_source

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def langsim(asked: Asked) -> Baseline:
    """The languages most similar to the target.

    Raises:
        ConfigError: no language of the pool has vectors.
    """
    codes, spoken = _languages(asked)
    vectors = language_vectors((asked.question.language, *codes))
    alike = vectors.similarity(asked.question.language)[1:]
    if np.isnan(alike).all():
        raise ConfigError(
            f"langsim: none of the pool's other languages ({', '.join(codes)}) has vectors in {vectors.source}; "
            f"install lang2vec (pip install 'compass-ray[typology]'), or leave langsim out of select.methods"
        )
    unknown = [code for code, value in zip(codes, alike, strict=True) if np.isnan(value)]
    return _rows_of(asked, codes, spoken, alike, {"vectors": vectors.source, "without_vectors": unknown})


def langrank(asked: Asked) -> Baseline:
    """The languages that a ranker puts first, learned from transfers between other languages.

    Raises:
        ConfigError: the table of transfers cannot be used, or has too few without the target.
        ModelError: lightgbm is not installed.
    """
    codes, spoken = _languages(asked)
    learned = without_target(read_transfers(asked.settings.results), asked.question.language)
    scores = _ranker(learned).scores(_features(asked, codes))
    record = {"vectors": vectors_source(), "results": learned.source, "transfers": len(learned.gain)}
    return _rows_of(asked, codes, spoken, scores, record)


def _rows_of(asked: Asked, codes: Sequence[str], spoken: IntArray, scores: FloatArray, record: Mapping[str, Any]) -> Baseline:
    """Rows of the best languages: `spoken` int64[n] into `codes`, `scores` one a code."""
    chosen = best(scores, codes, asked.settings.languages)
    kept = np.array([score if code in chosen else np.nan for code, score in zip(codes, scores, strict=True)])
    picker = (AllAmong if asked.settings.rows == "all" else AlikeAmong)(kept[spoken])
    similarity = [float(scores[codes.index(code)]) for code in chosen]
    transfer = {"languages": chosen, "similarity": similarity, "rows": asked.settings.rows, **record}
    return Baseline(picker, {"transfer": transfer})


def _languages(asked: Asked) -> tuple[list[str], IntArray]:
    """The candidates' languages in alphabetical order, and which of them each candidate is."""
    if not len(asked.rows):
        raise ConfigError(f"{asked.question.language}: the pool has no rows of other languages to choose from; add some to it")
    spoken = asked.pool.language.take(pa.array(asked.rows)).to_numpy(zero_copy_only=False)
    codes, place = np.unique(spoken.astype(str), return_inverse=True)
    return codes.tolist(), place.astype(np.int64)


def _features(asked: Asked, codes: Sequence[str]) -> FloatArray:
    texts, target = asked.material.texts(), asked.question.language
    own = texts.corpus(asked.pool.position[asked.question.own].astype(np.int64))
    vectors = language_vectors((target, *codes))
    pairs = [list(measured(own, texts.corpora[code]).values()) for code in codes]
    return features(pairs, vectors.distances(target)[1:])


def _ranker(learned: Transfers) -> TransferRanker:
    vectors = language_vectors(tuple(sorted({*learned.target, *learned.transfer})))
    pairs = zip(learned.target, learned.transfer, strict=True)
    far = [vectors.distances(target)[vectors.codes.index(transfer)] for target, transfer in pairs]
    return TransferRanker(learned.target, features(learned.measured, np.array(far)), learned.gain)
