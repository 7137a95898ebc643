"""Quality measures of the small models, which tests check for packaged and rebuilt ones.

All use guide and test prompts, which no model was trained on. They are not the evaluation of a run, which asks for facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from compass_ray.languages import GLOBAL_MMLU, LANGUAGES, from_label
from compass_ray.models.tiny.language_id import FILE
from compass_ray.sources.atlas import atlas_guide, atlas_test, subjects

_DIMENSIONS = 30


@dataclass(frozen=True, slots=True)
class ClusterQuality:
    """Agreement of the encoder's k-means clusters with subjects and with languages (1 is equal, 0 is chance)."""

    subject_rand: float
    subject_information: float
    language_rand: float
    language_information: float


@dataclass(frozen=True, slots=True)
class HeldOutPrompts:
    """Held-out prompts of every language, with their subjects."""

    texts: list[str]
    subjects: list[str]
    languages: list[str]


def collect_held_out_prompts(load_table: Callable[[str], pa.Table]) -> HeldOutPrompts:
    """Return the prompts of the 42 languages from `load_table`: `atlas_guide` or `atlas_test`."""
    prompts = HeldOutPrompts([], [], [])
    for code in GLOBAL_MMLU:
        table = load_table(code)
        prompts.texts.extend(table["question"].to_pylist())
        prompts.subjects.extend(table["subject"].to_pylist())
        prompts.languages.extend([code] * table.num_rows)
    return prompts


def encoder_quality(directory: Path, *, seed: int = 0) -> ClusterQuality:
    """Cluster the guide prompts after PCA to 30 dimensions, with k-means and one cluster per subject."""
    from sentence_transformers import SentenceTransformer
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    prompts = collect_held_out_prompts(atlas_guide)
    encoder = SentenceTransformer(str(directory), device="cpu")
    vectors = np.asarray(encoder.encode(prompts.texts, normalize_embeddings=True, show_progress_bar=False), np.float32)
    reduced = PCA(_DIMENSIONS, random_state=seed).fit_transform(vectors)
    clusters = KMeans(len(subjects()), n_init=4, random_state=seed).fit_predict(reduced)
    return ClusterQuality(
        subject_rand=float(adjusted_rand_score(prompts.subjects, clusters)),
        subject_information=float(normalized_mutual_info_score(prompts.subjects, clusters)),
        language_rand=float(adjusted_rand_score(prompts.languages, clusters)),
        language_information=float(normalized_mutual_info_score(prompts.languages, clusters)),
    )


def language_id_accuracy(directory: Path) -> dict[str, float]:
    """Return, by language, the fraction of test prompts with the correct label."""
    import fasttext

    identifier: Any = fasttext.load_model(str(directory / FILE))
    prompts = collect_held_out_prompts(atlas_test)
    labels, _ = identifier.predict(prompts.texts)
    predicted = [from_label(label[0]) for label in labels]
    correct = [each is not None and each.code == code for each, code in zip(predicted, prompts.languages, strict=True)]
    return {
        code: float(np.mean([hit for hit, language in zip(correct, prompts.languages, strict=True) if language == code]))
        for code in GLOBAL_MMLU
    }


def reading_accuracy(directory: Path, *, every: int = 11) -> dict[str, float]:
    """Return, by script, the fraction of names (one in `every`) for which the base model's most likely reply is the code."""
    return _accuracy_by_script(directory, every, writing=False)


def writing_accuracy(directory: Path, *, every: int = 11) -> dict[str, float]:
    """Return, by script, the fraction of codes for which the base model's most likely reply is the name in that language."""
    return _accuracy_by_script(directory, every, writing=True)


def _accuracy_by_script(directory: Path, every: int, *, writing: bool) -> dict[str, float]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from compass_ray.models.tiny.training_examples import code_to_name, list_spellings, name_to_code

    tokenizer: Any = AutoTokenizer.from_pretrained(str(directory))
    model: Any = AutoModelForCausalLM.from_pretrained(str(directory), dtype="float32")
    spellings = list_spellings()[::every]
    make_example = code_to_name if writing else name_to_code
    correct = _are_most_likely(model, tokenizer, [make_example(each, 1) for each in spellings])
    by_script: dict[str, list[bool]] = {}
    for each, hit in zip(spellings, correct, strict=True):
        by_script.setdefault(LANGUAGES[each.language].script, []).append(hit)
    return {script: float(np.mean(hits)) for script, hits in by_script.items()}


def _are_most_likely(model: Any, tokenizer: Any, examples: list[Any], batch: int = 256) -> list[bool]:
    import torch

    from compass_ray.models.tiny.base_model import collate, encode

    correct: list[bool] = []
    with torch.inference_mode():
        for start in range(0, len(examples), batch):
            encoded = [encode(tokenizer, each) for each in examples[start : start + batch]]
            ids, labels = collate(encoded, tokenizer.pad_token_id)
            targets = labels[:, 1:]
            predicted = model(input_ids=ids).logits[:, :-1].argmax(-1)
            correct += ((predicted == targets) | (targets < 0)).all(1).tolist()
    return correct
