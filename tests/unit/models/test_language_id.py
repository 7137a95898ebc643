"""Language identification on top of a fastText model, which is a fake except where a test names a real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from compass_ray.config import IdentifierConfig
from compass_ray.languages import GLOBAL_MMLU
from compass_ray.models.errors import ModelError
from compass_ray.models.language_id import LanguageIdentifier

LINES = {
    "swh_Latn": "mji mkuu wa nchi",
    "eng_Latn": "what is the capital",
    "arb_Arab": "ما هي عاصمة البلد",
    "arz_Arab": "عامل ايه يا صاحبي",
    "xho_Latn": "ngubani igama lakho",
}


class SharedWords:
    """Fake fastText model: the share of a line's words that a label's line has, with fastText's call and offset."""

    def __init__(self, labels: Sequence[str] = tuple(LINES)) -> None:
        self.f, self.labels = self, labels

    def get_labels(self) -> list[str]:
        return [f"__label__{label}" for label in self.labels]

    def predict(self, line: str, k: int, threshold: float, errors: str) -> list[tuple[float, str]]:
        assert line.index("\n") == len(line) - 1, "fastText takes one line"
        assert (k, errors) == (-1, "strict")
        words = line.split()
        share = {label: sum(word in text.split() for word in words) / len(words) for label, text in LINES.items()}
        found = sorted(((value + 1e-5, f"__label__{label}") for label, value in share.items()), reverse=True)
        return [(value, label) for value, label in found if value >= threshold]


@pytest.fixture
def identifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageIdentifier:
    (tmp_path / "model.bin").touch()
    monkeypatch.setattr("fasttext.load_model", lambda path: SharedWords())
    return LanguageIdentifier(IdentifierConfig(model=str(tmp_path)))


def test_small_model_of_the_package_knows_four_scripts() -> None:
    texts = ["Sarafu ya nchi hii inaitwaje: Kenya?", "Какая столица Кении?", "केन्या की राजधानी क्या है?", "የኬንያ ዋና ከተማ ማን ናት?"]
    found = LanguageIdentifier(IdentifierConfig(model="atlas")).identify(texts)
    assert [each.language for each in found] == ["sw", "ru", "hi", "am"]
    assert all(0.5 < each.confidence <= 1 for each in found)


def test_languages_by_their_codes(identifier: LanguageIdentifier) -> None:
    found = identifier.identify([LINES["swh_Latn"], LINES["eng_Latn"]])
    assert [(each.language, each.label) for each in found] == [("sw", "swh_Latn"), ("en", "eng_Latn")]
    assert all(0.5 < each.confidence <= 1 for each in found)


def test_dialects_add_up_to_their_language(identifier: LanguageIdentifier) -> None:
    mixed = f"{LINES['arb_Arab']} {LINES['arz_Arab']}"
    found = identifier.identify([mixed])[0]
    assert found.language == "ar"
    assert found.confidence > 0.9


def test_unknown_language_has_a_label_and_no_code(identifier: LanguageIdentifier) -> None:
    found = identifier.identify([LINES["xho_Latn"]])[0]
    assert found.language is None
    assert found.label == "xho_Latn"


def test_restriction_does_not_raise_the_confidence_of_another_language(identifier: LanguageIdentifier) -> None:
    text = f"{LINES['eng_Latn']} mji mkuu"
    free, bound = (identifier.identify([text], restrict=allowed)[0] for allowed in (None, {"sw"}))
    assert (free.language, free.label) == ("en", "eng_Latn")
    assert (bound.language, bound.label, bound.confidence) == (None, "eng_Latn", free.confidence)
    assert bound.alternatives == (("sw", pytest.approx(1 / 3, abs=1e-4)),)


def test_alternatives_are_the_next_known_languages_by_confidence(identifier: LanguageIdentifier) -> None:
    found = identifier.identify([f"{LINES['swh_Latn']} ما هي {LINES['xho_Latn']} what"])[0]
    assert found.language == "sw"
    assert [code for code, _ in found.alternatives] == ["ar", "en"], "an unknown language is not an alternative"
    values = [found.confidence, *(confidence for _, confidence in found.alternatives)]
    assert values == sorted(values, reverse=True)
    # fastText adds 1e-5 to every probability.
    assert sum(values) <= 1.0 + 1e-4


def test_line_breaks_change_nothing(identifier: LanguageIdentifier) -> None:
    one, broken = identifier.identify([LINES["swh_Latn"], LINES["swh_Latn"].replace(" ", "\r\n\n")])
    assert one == broken


@pytest.mark.parametrize("text", ["", "   ", "\n\n\t", "\u200b\ufeff"])
def test_empty_text_has_no_language(identifier: LanguageIdentifier, text: str) -> None:
    found = identifier.identify([text])[0]
    assert (found.language, found.confidence) == (None, 0.0)
    assert identifier.identify([]) == []


def test_file_that_is_not_a_model_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"nothing at all")
    for where, message in (
        (tmp_path / "model.bin", "not a fastText model"),
        (tmp_path / "none" / "at" / "all", "does not exist"),
    ):
        with pytest.raises(ModelError, match=message):
            LanguageIdentifier(IdentifierConfig(model=str(where)))


def test_folder_without_a_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no \.bin or \.ftz"):
        LanguageIdentifier(IdentifierConfig(model=str(tmp_path)))


def test_labels_may_be_two_letter_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttext.load_model", lambda path: SharedWords(["sw", "tl", "sh"]))
    (tmp_path / "model.ftz").touch()
    found = LanguageIdentifier(IdentifierConfig(model=str(tmp_path / "model.ftz")))
    assert found.languages == {"sw", "fil"}
    assert found.unknown_languages(["ha", "sw", "ig"]) == ("ha", "ig")


def test_model_without_a_known_language_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttext.load_model", lambda path: SharedWords(["positive", "negative"]))
    (tmp_path / "model.bin").touch()
    with pytest.raises(ModelError, match=r"none of its 2 labels .*__label__positive.* is a known language"):
        LanguageIdentifier(IdentifierConfig(model=str(tmp_path)))


@pytest.mark.real_models
def test_lid_176_works_as_it_is(real_models: Path) -> None:
    identifier = LanguageIdentifier(IdentifierConfig(model=str(real_models / "lid.176.ftz")))
    assert identifier.unknown_languages(GLOBAL_MMLU) == ("ha", "ig", "ny", "sn")
    texts = {
        "ar": "ما هي عاصمة كينيا وكم عدد سكانها؟",
        "de": "Wie heißt die Hauptstadt von Kenia?",
        "fil": "Ano ang kabisera ng Kenya at ilan ang tao roon?",
        "sw": "Mji mkuu wa nchi ya Kenya unaitwaje?",
        "zh": "肯尼亚的首都叫什么名字？",
    }
    found = identifier.identify(list(texts.values()), GLOBAL_MMLU)
    assert [each.language for each in found] == list(texts)
    assert all(0.5 < each.confidence <= 1 for each in found)
