"""Identification by a fastText model trained here on four languages, two of them dialects of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.config import IdentifierConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.language_id import LanguageIdentifier

LINES = {
    "swh_Latn": "mji mkuu wa nchi ni upi habari ya leo rafiki yangu",
    "eng_Latn": "what is the capital of the country how are you my friend",
    "arb_Arab": "ما هي عاصمة البلد كيف حالك يا صديقي",
    "arz_Arab": "ايه هي عاصمة البلد عامل ايه يا صاحبي",
    "xho_Latn": "ngubani igama lakho molo mhlobo wam unjani namhlanje",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import fasttext

    folder = tmp_path_factory.mktemp("identifier")
    lines = [f"__label__{label} {' '.join(text.split()[i % 4 :])}" for i in range(60) for label, text in LINES.items()]
    (folder / "train.txt").write_text("\n".join(lines), "utf-8")
    trained = fasttext.train_supervised(str(folder / "train.txt"), dim=8, epoch=30, lr=0.2, thread=1, verbose=0)
    (folder / "train.txt").unlink()
    trained.save_model(str(folder / "model.bin"))
    return folder


@pytest.fixture(scope="module")
def identifier(model: Path) -> LanguageIdentifier:
    return LanguageIdentifier(IdentifierConfig(model=str(model)))


def test_languages_by_their_codes(identifier: LanguageIdentifier) -> None:
    found = identifier.identify([LINES["swh_Latn"], LINES["eng_Latn"]])
    assert [(each.language, each.label) for each in found] == [("sw", "swh_Latn"), ("en", "eng_Latn")]
    assert all(0.5 < each.confidence <= 1 for each in found)


def test_dialects_add_up_to_their_language(identifier: LanguageIdentifier) -> None:
    mixed = f"{LINES['arb_Arab']} {LINES['arz_Arab']}"
    found = identifier.identify([mixed])[0]
    assert found.language == "ar"
    assert found.confidence > 0.9


def test_language_that_is_none_of_ours_has_a_label_and_no_code(identifier: LanguageIdentifier) -> None:
    found = identifier.identify([LINES["xho_Latn"]])[0]
    assert found.language is None
    assert found.label == "xho_Latn"


def test_restriction_never_makes_a_stranger_sure(identifier: LanguageIdentifier) -> None:
    free, bound = (identifier.identify([LINES["eng_Latn"]], restrict=allowed)[0] for allowed in (None, {"sw"}))
    assert free.language == "en"
    assert bound.language == "sw"
    assert bound.confidence < 0.5
    # fastText adds 1e-5 to every probability.
    assert free.confidence + bound.confidence <= 1.0 + 1e-4
    assert identifier.identify(["x"], restrict={"yo"})[0].language is None


def test_line_breaks_change_nothing(identifier: LanguageIdentifier) -> None:
    one, broken = identifier.identify([LINES["swh_Latn"], LINES["swh_Latn"].replace(" ", "\r\n\n")])
    assert one == broken


@pytest.mark.parametrize("text", ["", "   ", "\n\n\t"])
def test_empty_text_is_nothing(identifier: LanguageIdentifier, text: str) -> None:
    found = identifier.identify([text])[0]
    assert (found.language, found.confidence) == (None, 0.0)
    assert identifier.identify([]) == []


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"nothing at all")
    for where, message in ((tmp_path / "model.bin", "no fastText model"), (tmp_path / "none" / "at" / "all", "does not exist")):
        with pytest.raises(ModelError, match=message):
            LanguageIdentifier(IdentifierConfig(model=str(where)))


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no \.bin or \.ftz"):
        LanguageIdentifier(IdentifierConfig(model=str(tmp_path)))
