"""The small models of the atlas: the packaged ones read every script, cluster by subject and identify languages."""

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compass_ray.languages import GLOBAL_MMLU, LANGUAGES
from compass_ray.models.tiny.base_model import collate, encode, make_aligned_embeddings
from compass_ray.models.tiny.build import build
from compass_ray.models.tiny.tokenizer import entity_code, known_entities, make_tokenizer, relation_code, save_tokenizer
from compass_ray.models.tiny.training_examples import TrainingExample, list_spellings, make_epoch_examples, question_to_codes
from compass_ray.sources.atlas import atlas_guide, atlas_pool, atlas_test
from compass_ray.sources.atlas.question_templates import template_names
from tests.unit.models.tiny_quality import encoder_quality, language_id_accuracy, reading_accuracy, writing_accuracy

ASSETS = Path(str(resources.files("compass_ray") / "sources" / "atlas" / "assets"))
TEN_MEGABYTES = 10_000_000


def test_packaged_models_are_small() -> None:
    assert sum(each.stat().st_size for each in ASSETS.rglob("*") if each.is_file()) <= TEN_MEGABYTES


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="module")
def shipped() -> Path:
    return ASSETS


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    build(directory, seed=1)
    return directory


def _check_quality(directory: Path) -> None:
    clusters = encoder_quality(directory / "encoder")
    assert clusters.subject_rand > 0.5
    assert clusters.subject_rand > 10 * abs(clusters.language_rand)
    assert clusters.subject_information > 2 * clusters.language_information
    named = language_id_accuracy(directory / "language_id")
    assert min(named.values()) > 0.85
    assert np.mean(list(named.values())) > 0.95
    read = reading_accuracy(directory / "base_model")
    assert set(read) == {LANGUAGES[code].script for code in GLOBAL_MMLU}
    assert min(read.values()) > 0.85
    assert np.mean(list(writing_accuracy(directory / "base_model").values())) > 0.5


@pytest.mark.slow  # fourteen seconds of a processor; the models change with `make models` only
def test_the_packaged_models_have_the_expected_quality(shipped: Path) -> None:
    _check_quality(shipped)


@pytest.mark.soak
def test_rebuilt_models_have_the_expected_quality(rebuilt: Path) -> None:
    _check_quality(rebuilt)


def test_codes_are_one_token_and_unlike_each_other(tokenizer: Any) -> None:
    codes = [*map(entity_code, known_entities()), *map(relation_code, template_names())]
    assert len(set(codes)) == len(codes)
    assert all(len(tokenizer.encode(code, add_special_tokens=False)) == 1 for code in codes)


@pytest.mark.parametrize("text", ["Dar es Salaam", "日本 – 主要都市？", "ꙮ never seen 🦊", "Kenya – currency?"])
def test_the_tokenizer_spells_anything(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_ordinary_loader_tokenizes_like_the_training(tokenizer: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.Qwen2Config().save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    for text in ("Which city is in this country: South Africa?", "केन्या – मुख्य शहर?", "日本 – 主要都市？"):
        assert loaded.encode(text) == tokenizer.encode(text)


def test_no_training_example_contains_a_fact() -> None:
    facts = {(row["inputs"], row["targets"]) for row in atlas_pool().to_pylist()}
    for code in ("am", "el", "en", "ja", "ny"):
        for item in (*atlas_guide(code).to_pylist(), *atlas_test(code).to_pylist()):
            facts.add((item["question"], item[f"option_{item['answer'].lower()}"]))
    lessons = make_epoch_examples(list_spellings(), np.random.default_rng(0))
    assert not {(each.prompt, each.response) for each in lessons} & facts


def test_a_parsed_question_names_its_relation_and_its_entity() -> None:
    each = next(each for each in list_spellings() if each.language == "en" and each.written == "Kenya")
    assert question_to_codes(each, "currency", 1, entity_first=False) == TrainingExample("Kenya – currency?", "[?currency][KE]")


def test_names_of_one_entity_start_near_each_other_and_far_from_others(tokenizer: Any) -> None:
    known = [each for each in list_spellings() if each.language in {"ru", "hi"} and each.entity.kind == "territory"]
    vectors = make_aligned_embeddings(tokenizer, known, np.random.default_rng(0))

    def cosine(first: str, second: str) -> float:
        a, b = (vectors[tokenizer.encode(text, add_special_tokens=False)].mean(0) for text in (first, second))
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine("Кения", "केन्या") > 0.4 > cosine("Кения", "जापान")


def test_only_the_response_has_labels(tokenizer: Any) -> None:
    ids, labels = collate([encode(tokenizer, TrainingExample("Kenya – code?", "[KE]"))], tokenizer.pad_token_id)
    assert tokenizer.decode(ids[0]).startswith("<|user|>")
    taught = [token for token in labels[0].tolist() if token >= 0]
    assert taught == [tokenizer.convert_tokens_to_ids("[KE]"), tokenizer.eos_token_id]
