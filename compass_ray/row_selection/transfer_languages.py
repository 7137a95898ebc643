"""Rows of the best transfer languages: by similarity (LangSim) or by a ranker (LangRank). COMPASS, section 4.3.

Key property: a language without vectors is never taken by similarity, and the record names it; a ranker takes what is not
known for unknown. No transfer to or from the target itself is shown to the ranker.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray.config import ConfigError
from compass_ray.core.baselines.language_similarity import top_k_names
from compass_ray.core.baselines.pickers import SubsetPicker, UniformSubsetPicker
from compass_ray.core.baselines.transfer_ranking import measure_pair, ranker_features
from compass_ray.models.transfer_ranker import TransferRanker, exclude_target
from compass_ray.records.allocation import TransferRecord
from compass_ray.row_selection.baseline_inputs import Baseline, BaselineInputs
from compass_ray.sources.typology import Transfers, load_language_vectors, read_transfers, vectors_source

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def langsim(asked: BaselineInputs) -> Baseline:
    """The languages most similar to the target.

    Raises:
        ConfigError: no language of the pool has vectors.
    """
    codes, spoken = _candidate_languages(asked)
    vectors = load_language_vectors((asked.problem.language, *codes))
    alike = vectors.similarity(asked.problem.language)[1:]
    if np.isnan(alike).all():
        raise ConfigError(
            f"langsim: none of the pool's other languages ({', '.join(codes)}) has vectors in {vectors.source}; "
            f"install lang2vec (pip install 'compass-ray[typology]'), or leave langsim out of select.methods"
        )
    unknown = [code for code, value in zip(codes, alike, strict=True) if np.isnan(value)]
    record = TransferRecord(vectors=vectors.source, without_vectors=tuple(unknown))
    return _pick_languages(asked, codes, spoken, alike, record)


def langrank(asked: BaselineInputs) -> Baseline:
    """The languages that a ranker puts first, learned from transfers between other languages.

    Raises:
        ConfigError: the table of transfers cannot be used, or has too few without the target.
        ModelError: lightgbm is not installed.
    """
    codes, spoken = _candidate_languages(asked)
    learned = exclude_target(read_transfers(asked.settings.results), asked.problem.language)
    scores = _ranker(learned).scores(_features(asked, codes))
    record = TransferRecord(vectors=vectors_source(), results=learned.source, transfers=len(learned.gain))
    return _pick_languages(asked, codes, spoken, scores, record)


def _pick_languages(
    asked: BaselineInputs, codes: Sequence[str], spoken: IntArray, scores: FloatArray, record: TransferRecord
) -> Baseline:
    """Rows of the best languages: `spoken` int64[n] into `codes`, `scores` one a code."""
    chosen = top_k_names(scores, codes, asked.settings.languages)
    kept = np.array([score if code in chosen else np.nan for code, score in zip(codes, scores, strict=True)])
    picker = (SubsetPicker if asked.settings.rows == "all" else UniformSubsetPicker)(kept[spoken])
    similarity = [float(scores[codes.index(code)]) for code in chosen]
    found = {"languages": tuple(chosen), "similarity": tuple(similarity), "rows": asked.settings.rows}
    return Baseline(picker, record.model_copy(update=found))


def _candidate_languages(asked: BaselineInputs) -> tuple[list[str], IntArray]:
    """The candidates' languages in alphabetical order, and which of them each candidate is."""
    if not len(asked.rows):
        raise ConfigError(f"{asked.problem.language}: the pool has no rows of other languages to choose from; add some to it")
    spoken = asked.pool.language.take(pa.array(asked.rows)).to_numpy(zero_copy_only=False)
    codes, place = np.unique(spoken.astype(str), return_inverse=True)
    return codes.tolist(), place.astype(np.int64)


def _features(asked: BaselineInputs, codes: Sequence[str]) -> FloatArray:
    texts, target = asked.features.texts(), asked.problem.language
    own = texts.corpus(asked.pool.position[asked.problem.own].astype(np.int64))
    vectors = load_language_vectors((target, *codes))
    pairs = [list(measure_pair(own, texts.corpora[code]).values()) for code in codes]
    return ranker_features(pairs, vectors.distances(target)[1:])


def _ranker(learned: Transfers) -> TransferRanker:
    vectors = load_language_vectors(tuple(sorted({*learned.target, *learned.transfer})))
    pairs = zip(learned.target, learned.transfer, strict=True)
    far = [vectors.distances(target)[vectors.codes.index(transfer)] for target, transfer in pairs]
    return TransferRanker(learned.target, ranker_features(learned.measured, np.array(far)), learned.gain)
