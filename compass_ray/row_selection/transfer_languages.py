"""Rows of the best transfer languages, by similarity (LangSim) or by a ranker (LangRank). COMPASS, section 4.3.

Key property: LangSim never selects a language without vectors, and its record names such languages. The ranker treats
missing values as unknown. It never sees transfers to or from the target itself.
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


def langsim(inputs: BaselineInputs) -> Baseline:
    """The languages most similar to the target.

    Raises:
        ConfigError: no language of the pool has vectors.
    """
    codes, language_index = _candidate_languages(inputs)
    vectors = load_language_vectors((inputs.problem.language, *codes))
    similarity = vectors.similarity(inputs.problem.language)[1:]
    if np.isnan(similarity).all():
        raise ConfigError(
            f"langsim: none of the pool's other languages ({', '.join(codes)}) has vectors in {vectors.source}; "
            f"install lang2vec (pip install 'compass-ray[typology]'), or leave langsim out of select.methods"
        )
    unknown = [code for code, value in zip(codes, similarity, strict=True) if np.isnan(value)]
    record = TransferRecord(vectors=vectors.source, without_vectors=tuple(unknown))
    return _pick_languages(inputs, codes, language_index, similarity, record)


def langrank(inputs: BaselineInputs) -> Baseline:
    """The languages that a ranker, trained on transfers between other languages, puts first.

    Raises:
        ConfigError: the table of transfers cannot be used, or has too few without the target.
        ModelError: lightgbm is not installed.
    """
    codes, language_index = _candidate_languages(inputs)
    learned = exclude_target(read_transfers(inputs.settings.results), inputs.problem.language)
    scores = _ranker(learned).scores(_features(inputs, codes))
    record = TransferRecord(vectors=vectors_source(), results=learned.source, transfers=len(learned.gain))
    return _pick_languages(inputs, codes, language_index, scores, record)


def _pick_languages(
    inputs: BaselineInputs, codes: Sequence[str], language_index: IntArray, scores: FloatArray, record: TransferRecord
) -> Baseline:
    """Picker over the rows of the best languages: `language_index` int64[n] indexes `codes` and `scores`."""
    chosen = top_k_names(scores, codes, inputs.settings.languages)
    kept = np.array([score if code in chosen else np.nan for code, score in zip(codes, scores, strict=True)])
    picker = (SubsetPicker if inputs.settings.rows == "all" else UniformSubsetPicker)(kept[language_index])
    similarity = [float(scores[codes.index(code)]) for code in chosen]
    found = {"languages": tuple(chosen), "similarity": tuple(similarity), "rows": inputs.settings.rows}
    return Baseline(picker, record.model_copy(update=found))


def _candidate_languages(inputs: BaselineInputs) -> tuple[list[str], IntArray]:
    """Languages of the candidates, sorted, and the index of each candidate's language."""
    if not len(inputs.rows):
        raise ConfigError(f"{inputs.problem.language}: the pool has no rows of other languages to choose from; add some to it")
    languages = inputs.pool.language.take(pa.array(inputs.rows)).to_numpy(zero_copy_only=False)
    codes, index = np.unique(languages.astype(str), return_inverse=True)
    return codes.tolist(), index.astype(np.int64)


def _features(inputs: BaselineInputs, codes: Sequence[str]) -> FloatArray:
    texts, target = inputs.features.texts(), inputs.problem.language
    own = texts.corpus(inputs.pool.position[inputs.problem.own].astype(np.int64))
    vectors = load_language_vectors((target, *codes))
    pairs = [list(measure_pair(own, texts.corpora[code]).values()) for code in codes]
    return ranker_features(pairs, vectors.distances(target)[1:])


def _ranker(learned: Transfers) -> TransferRanker:
    vectors = load_language_vectors(tuple(sorted({*learned.target, *learned.transfer})))
    pairs = zip(learned.target, learned.transfer, strict=True)
    far = [vectors.distances(target)[vectors.codes.index(transfer)] for target, transfer in pairs]
    return TransferRanker(learned.target, ranker_features(learned.measured, np.array(far)), learned.gain)
