"""How good the small models are: what a test holds them to, whether shipped or rebuilt.

Every figure is on guide and test prompts, which no model was trained on. Not the evaluation of a run: that asks facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from compass_ray.languages import GLOBAL_MMLU, LANGUAGES, from_glotlid
from compass_ray.models.tiny.language_id import FILE
from compass_ray.sources.atlas import atlas_guide, atlas_test, subjects

_DIMENSIONS = 30


@dataclass(frozen=True, slots=True)
class ClusterQuality:
    """How far the encoder's k-means clusters agree with subjects, and with languages (1 is equal, 0 is chance)."""

    subject_rand: float
    subject_information: float
    language_rand: float
    language_information: float


@dataclass(frozen=True, slots=True)
class HeldOutPrompts:
    """Held-out prompts of every language, with what they are about."""

    texts: list[str]
    subjects: list[str]
    languages: list[str]


def collect_held_out_prompts(of: Callable[[str], pa.Table]) -> HeldOutPrompts:
    """Return the prompts of the 42 languages in the tables `of` gives: `atlas_guide` or `atlas_test`."""
    found = HeldOutPrompts([], [], [])
    for code in GLOBAL_MMLU:
        table = of(code)
        found.texts.extend(table["question"].to_pylist())
        found.subjects.extend(table["subject"].to_pylist())
        found.languages.extend([code] * table.num_rows)
    return found


def encoder_quality(directory: Path, *, seed: int = 0) -> ClusterQuality:
    """Cluster the guide prompts after PCA to 30 dimensions, k-means with as many clusters as subjects."""
    from sentence_transformers import SentenceTransformer
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    prompts = collect_held_out_prompts(atlas_guide)
    encoder = SentenceTransformer(str(directory), device="cpu")
    vectors = np.asarray(encoder.encode(prompts.texts, normalize_embeddings=True, show_progress_bar=False), np.float32)
    reduced = PCA(_DIMENSIONS, random_state=seed).fit_transform(vectors)
    found = KMeans(len(subjects()), n_init=4, random_state=seed).fit_predict(reduced)
    return ClusterQuality(
        subject_rand=float(adjusted_rand_score(prompts.subjects, found)),
        subject_information=float(normalized_mutual_info_score(prompts.subjects, found)),
        language_rand=float(adjusted_rand_score(prompts.languages, found)),
        language_information=float(normalized_mutual_info_score(prompts.languages, found)),
    )


def language_id_accuracy(directory: Path) -> dict[str, float]:
    """Return, by language, the share of test prompts whose label is the language's."""
    import fasttext

    identifier: Any = fasttext.load_model(str(directory / FILE))
    prompts = collect_held_out_prompts(atlas_test)
    labels, _ = identifier.predict(prompts.texts)
    named = [from_glotlid(label[0]) for label in labels]
    right = [each is not None and each.code == code for each, code in zip(named, prompts.languages, strict=True)]
    return {
        code: float(np.mean([hit for hit, of in zip(right, prompts.languages, strict=True) if of == code]))
        for code in GLOBAL_MMLU
    }


def reading_accuracy(directory: Path, *, every: int = 11) -> dict[str, float]:
    """Return, by script, the share of names (one in `every`) whose code the base model gives as its likeliest reply."""
    return _accuracy_by_script(directory, every, writing=False)


def writing_accuracy(directory: Path, *, every: int = 11) -> dict[str, float]:
    """Return, by script, the share of codes whose name the base model gives, in the language asked, as its likeliest reply."""
    return _accuracy_by_script(directory, every, writing=True)


def _accuracy_by_script(directory: Path, every: int, *, writing: bool) -> dict[str, float]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from compass_ray.models.tiny.training_examples import code_to_name, list_spellings, name_to_code

    tokenizer: Any = AutoTokenizer.from_pretrained(str(directory))
    model: Any = AutoModelForCausalLM.from_pretrained(str(directory), dtype="float32")
    picked = list_spellings()[::every]
    ask = code_to_name if writing else name_to_code
    right = _are_likeliest(model, tokenizer, [ask(each, 1) for each in picked])
    by_script: dict[str, list[bool]] = {}
    for each, hit in zip(picked, right, strict=True):
        by_script.setdefault(LANGUAGES[each.language].script, []).append(hit)
    return {script: float(np.mean(hits)) for script, hits in by_script.items()}


def _are_likeliest(model: Any, tokenizer: Any, lessons: list[Any], batch: int = 256) -> list[bool]:
    import torch

    from compass_ray.models.tiny.base_model import collate, encode

    right: list[bool] = []
    with torch.inference_mode():
        for start in range(0, len(lessons), batch):
            encoded = [encode(tokenizer, each) for each in lessons[start : start + batch]]
            ids, labels = collate(encoded, tokenizer.pad_token_id)
            wanted = labels[:, 1:]
            likeliest = model(input_ids=ids).logits[:, :-1].argmax(-1)
            right += ((likeliest == wanted) | (wanted < 0)).all(1).tolist()
    return right
