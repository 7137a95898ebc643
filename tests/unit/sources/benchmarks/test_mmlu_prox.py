"""MMLU-ProX as it lies on the hub: ten options and fewer, and items that guided taken out of the test set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compass_ray import schemas
from compass_ray.config import ConfigError, PoolConfig, SourceConfig
from compass_ray.sources.guides import GuideAndTest, read_guide_and_test
from tests.unit.sources.benchmarks.hub import GLOBAL_MMLU, MMLU_PROX, Rows, prox, repository

TEN = [f"option {place}" for place in range(10)]
TEST = [
    prox(70, "Kumi?", TEN, "J"),
    prox(71, "Tatu?", ["a", "b", "c"], "C", category="law"),
    prox(72, "Pengo?", [*TEN[:8], None, "the tenth"], "J"),
    prox(73, "Tupu?", ["a", "N/A", "b", "N/A", " "], "C"),
    prox(74, "Lite, kwa maneno mengine?", ["a", "b"], "A"),
    prox(75, "Lite, maneno yale yale?", ["a", "b"], "B"),
]
VALIDATION = [prox(0, "Mfano?", ["a", "b"], "A")]
LITE = [
    prox(0, "Lite, tofauti?", ["a", "b"], "A", question_id_src=74),
    prox(1, "Lite,  MANENO yale yale?", ["a", "b"], "B", question_id_src=9075),
]


def _configs(folder: Path, test: Rows = TEST, lite: Rows = LITE) -> dict[str, Any]:
    whole = repository(folder / "MMLU-ProX", {"sw": {"validation": VALIDATION, "test": test}}, MMLU_PROX)
    small = repository(folder / "MMLU-ProX-Lite", {"sw": {"validation": VALIDATION, "test": lite}}, MMLU_PROX)
    validation = {"path": whole, "name": "{language}", "split": "validation"}
    return {
        "guides": {"path": small, "name": "{language}", "split": "test", "extra_sources": [validation]},
        "tests": {"path": whole, "name": "{language}", "split": "test", "on_guide_overlap": "remove"},
    }


def _read(folder: Path, language: str = "sw", **changes: Any) -> GuideAndTest:
    return read_guide_and_test(PoolConfig.model_validate({**_configs(folder), **changes}), language)


def test_the_guide_set_is_validation_and_the_lite_test(tmp_path: Path) -> None:
    guide = _read(tmp_path).guide
    assert guide.schema == schemas.GUIDES
    assert sorted(guide["prompt"].to_pylist()) == sorted(row["question"] for row in [*VALIDATION, *LITE])
    assert set(guide["subject"].to_pylist()) == {"physics"}


def test_items_have_the_options_that_are_there_and_the_right_one(tmp_path: Path) -> None:
    found = _read(tmp_path)
    assert found.test.schema == schemas.ITEMS
    items = {item["question"]: (item["options"], item["answer"], item["subject"]) for item in found.test.to_pylist()}
    assert items == {
        "Kumi?": (TEN, 9, "physics"),
        "Tatu?": (["a", "b", "c"], 2, "law"),
        "Pengo?": ([*TEN[:8], "the tenth"], 8, "physics"),
        "Tupu?": (["a", "N/A", "b"], 2, "physics"),
    }


def test_items_that_guided_are_counted_and_left_out_by_number_and_by_text(tmp_path: Path) -> None:
    found = _read(tmp_path)
    assert found.removed == 2
    assert not any("Lite" in question for question in found.test["question"].to_pylist())


@pytest.mark.parametrize(
    ("lite", "told"),
    [
        (LITE[:1], r"1 test items of 'sw' are guide set items in another wording, for example 'Lite, kwa maneno"),
        (LITE[1:], r"1 guide prompts of 'sw' are also test questions, for example 'Lite,  MANENO"),
    ],
)
def test_where_it_is_not_meant_the_overlap_is_refused(tmp_path: Path, lite: Rows, told: str) -> None:
    configs = _configs(tmp_path, lite=lite)
    tests = {**configs["tests"], "on_guide_overlap": "refuse"}
    with pytest.raises(ConfigError, match=rf"{told}.*pool\.tests\.on_guide_overlap=remove"):
        read_guide_and_test(PoolConfig.model_validate({**configs, "tests": tests}), "sw")


def test_a_test_set_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    configs = _configs(tmp_path, test=TEST[-2:])
    with pytest.raises(ConfigError, match="every test item of 'sw' is in its guide set"):
        read_guide_and_test(PoolConfig.model_validate(configs), "sw")


def test_an_answer_that_names_an_empty_option_is_refused(tmp_path: Path) -> None:
    configs = _configs(tmp_path, test=[prox(70, "Kumi?", ["a", "b", "c"], "D")])
    with pytest.raises(ConfigError, match="answer 'D' is not A, B or C"):
        read_guide_and_test(PoolConfig.model_validate(configs), "sw")


def test_a_language_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MMLU-ProX-Lite \(yo, test\): cannot be loaded"):
        _read(tmp_path, "yo")


def test_numbers_of_another_benchmark_mean_nothing(tmp_path: Path) -> None:
    """A guide set with numbers 70 to 75 of its own: only MMLU-ProX's numbers name its items."""
    mine = [{"prompt": f"Langu {row['question']}", "item_id": str(row["question_id_src"])} for row in TEST]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in mine), "utf-8")
    assert _read(tmp_path, guides={"path": str(file)}).removed == 0


def _mmlu(sample_id: str, question: str) -> dict[str, Any]:
    options = {f"option_{letter}": letter for letter in "abcd"}
    subject = sample_id.split("/")[0]
    return {**dict.fromkeys(GLOBAL_MMLU.names), "sample_id": sample_id, "subject": subject, "question": question, **options}


def test_an_item_of_global_mmlu_is_known_again_in_every_language_by_its_english_text(tmp_path: Path) -> None:
    """Translated anew by MMLU-ProX, the Swahili texts differ; `src` and the English text say that items are the same."""
    physics, law = {"src": "ori_mmlu-high_school_physics"}, {"src": "ori_mmlu-professional_law"}
    english = [("What falls?", physics), ("What falls?", law), ("What rises?", {}), ("What stays?", physics)]
    swahili = ["Nini huanguka?", "Nini kinaanguka kisheria?", "Nini hupanda?", "Nini hukaa?"]
    tests = {
        "en": {"test": [prox(70 + i, text, TEN, "A", **source) for i, (text, source) in enumerate(english)]},
        "sw": {"test": [prox(70 + i, text, TEN, "A", **english[i][1]) for i, text in enumerate(swahili)]},
    }
    guides = {
        "en": {"dev": [_mmlu("high_school_physics/dev/3", "what falls? "), _mmlu("high_school_physics/dev/4", "What rises?")]},
        "sw": {"dev": [_mmlu("high_school_physics/dev/3", "Kitu gani?"), _mmlu("high_school_physics/dev/4", "Kipi?")]},
    }
    whole = repository(tmp_path / "MMLU-ProX", tests, MMLU_PROX)
    asked = repository(tmp_path / "Global-MMLU", guides, GLOBAL_MMLU)
    config = PoolConfig(
        guides=SourceConfig(path=asked, name="{language}", split="dev"),
        tests=SourceConfig(path=whole, name="{language}", split="test", on_guide_overlap="remove"),
    )
    found = read_guide_and_test(config, "sw")
    assert sorted(found.test["question"].to_pylist()) == sorted(swahili[1:])
    assert found.removed == 1
