"""XNLI as it lies on the hub: pairs of sentences become items with three options in the language's own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.config import ConfigError, PoolConfig, SourceConfig
from compass_ray.sources.guides import GuideAndTest, read_guide_and_test
from tests.unit.sources.benchmarks.hub import XNLI, Rows, repository

PAIRS: Rows = [
    {"premise": "Mvua inanyesha.", "hypothesis": "Kuna maji", "label": 0},
    {"premise": "Mvua inanyesha.", "hypothesis": "Ni usiku", "label": 1},
    {"premise": "Mvua inanyesha.", "hypothesis": "Jua linawaka", "label": 2},
]


def _read(folder: Path, language: str, test: Rows = PAIRS) -> GuideAndTest:
    guide = [{"premise": "Ni asubuhi.", "hypothesis": "Ni mchana", "label": 2}]
    path = repository(folder / "xnli", {language: {"validation": guide, "test": test}}, XNLI)
    guides, tests = (SourceConfig(path=path, name="{language}", split=split) for split in ("validation", "test"))
    return read_guide_and_test(PoolConfig(guides=guides, tests=tests), language)


def test_labels_are_options_in_the_words_of_the_language(tmp_path: Path) -> None:
    found = _read(tmp_path, "sw")
    right = {item["question"]: item["options"][item["answer"]] for item in found.test.to_pylist()}
    assert right == {
        "Mvua inanyesha.\n⇒ Kuna maji?": "Ndiyo",
        "Mvua inanyesha.\n⇒ Ni usiku?": "Labda",
        "Mvua inanyesha.\n⇒ Jua linawaka?": "Hapana",
    }
    assert found.guide["prompt"].to_pylist() == ["Ni asubuhi.\n⇒ Ni mchana?"]


@pytest.mark.parametrize("language", ["ar", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"])
def test_every_language_of_it_that_we_have_has_three_words(tmp_path: Path, language: str) -> None:
    for item in _read(tmp_path, language).test.to_pylist():
        assert len(set(item["options"])) == 3


def test_what_it_does_not_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="XNLI has no 'yo'; it has ar, de"):
        _read(tmp_path, "yo")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"premise": "a", "hypothesis": "b", "label": -1}, "label -1 is not 0, 1 or 2"),
        ({"premise": "a", "hypothesis": "", "label": 1}, "the test set of 'sw' has no prompt in row 3"),
    ],
)
def test_a_pair_that_cannot_be_asked_is_refused(tmp_path: Path, row: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        _read(tmp_path, "sw", [*PAIRS, row])
