"""Vectors of languages from lang2vec and from our own table, and tables of transfers in their three formats."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy.spatial.distance import cosine

from compass_ray.config import ConfigError
from compass_ray.core.baselines.language_similarity import top_k_names
from compass_ray.core.baselines.transfer_ranking import DISTANCES, MEASURED
from compass_ray.languages import LANGUAGES
from compass_ray.sources.typology import LanguageVectors, load_language_vectors, read_transfers, uriel, vectors_source

ALL = tuple(LANGUAGES)


@pytest.fixture(params=["lang2vec", "table"])
def vectors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LanguageVectors]:
    load_language_vectors.cache_clear()
    if request.param == "table":
        monkeypatch.setattr(uriel, "installed", lambda: None)
    yield load_language_vectors(ALL)
    load_language_vectors.cache_clear()


def nearest(vectors: LanguageVectors, code: str, k: int) -> list[str]:
    others = [other for other in ALL if other != code]
    alike = vectors.similarity(code)
    return top_k_names([alike[ALL.index(other)] for other in others], others, k)


def test_every_language_has_a_vector_in_every_group(vectors: LanguageVectors) -> None:
    for name, group in vectors.groups.items():
        assert np.isfinite(group).all()
        bare = [code for code, row in zip(ALL, group, strict=True) if not row.any()]
        assert not bare, f"{name} has no vector of {', '.join(bare)}"


def test_similarity_is_the_mean_over_groups(vectors: LanguageVectors) -> None:
    sw, ny = ALL.index("sw"), ALL.index("ny")
    each = [1.0 - cosine(group[sw], group[ny]) for group in vectors.groups.values()]
    assert vectors.similarity("sw")[ny] == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("code", "kin"),
    [
        ("sw", {"ny", "sn"}),
        ("uk", {"ru"}),
        ("id", {"ms", "fil"}),
        ("hi", {"ne", "bn", "si", "ur", "mr"}),
        ("ur", {"hi", "fa"}),
        ("zu", {"ny", "sn", "sw", "ig", "yo"}),
        ("af", {"nl", "de", "en"}),
    ],
)
def test_the_nearest_languages_are_kin(vectors: LanguageVectors, code: str, kin: set[str]) -> None:
    assert nearest(vectors, code, 1)[0] in kin


def test_distances_are_zero_to_oneself_and_nan_where_nothing_is_known(vectors: LanguageVectors) -> None:
    far = vectors.distances("sw")
    own = far[ALL.index("sw")]
    assert own[~np.isnan(own)] == pytest.approx(0.0, abs=1e-9)
    known = {name for name, values in zip(DISTANCES, far.T, strict=True) if not np.isnan(values).any()}
    assert known == set(vectors.groups_by_distance)


def test_the_source_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vectors_source() == "lang2vec 1.1.2"
    monkeypatch.setattr(uriel, "installed", lambda: None)
    assert vectors_source() == "compass_ray language table"


def test_individual_languages_are_read_as_the_package_has_them() -> None:
    with np.load(distribution("lang2vec").locate_file("lang2vec/data/family_features.npz")) as data:
        langs, values = data["langs"].tolist(), data["data"][:, :, 0]
    found = load_language_vectors(("sw", "ny", "ekk", "xxx")).groups["fam"]
    raw = values[[langs.index("swh"), langs.index("nya")]]
    assert found[:2].sum(axis=1).tolist() == raw.sum(axis=1).tolist()
    assert 1.0 - cosine(found[0], found[1]) == pytest.approx(1.0 - cosine(raw[0], raw[1]))
    assert not found[2:].any(), "a language that is not known has no vector"


def test_a_script_of_the_same_name_on_the_path_is_not_taken_for_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lang2vec.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_language_vectors.cache_clear()
    assert load_language_vectors(("sw", "yo")).groups["fam"].any()


def test_damaged_data_are_told_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uriel, "_folder", lambda: tmp_path)
    load_language_vectors.cache_clear()
    with pytest.raises(ConfigError, match=r"install lang2vec==1\.1\.2"):
        load_language_vectors(("sw", "yo"))


def rows(**changed: Any) -> list[dict[str, Any]]:
    base = {"transfer": "en", "gain": 0.1} | dict.fromkeys(MEASURED, 0.5)
    return [{"target": target} | base | changed for target in ("sw", "yo")]


def write(folder: Path, kind: str, table: list[dict[str, Any]]) -> str:
    path = folder / f"measured.{kind}"
    if kind == "json":
        path.write_text(json.dumps(table))
    elif kind == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(table), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_a_table_reads_the_same_in_every_format(tmp_path: Path, kind: str) -> None:
    found = read_transfers(write(tmp_path, kind, rows()))
    assert (found.target, found.transfer, found.source) == (("sw", "yo"), ("en", "en"), f"measured.{kind}")
    assert found.gain.tolist() == [0.1, 0.1]
    assert found.measured.tolist() == [[0.5] * 6] * 2
    assert found.without("sw").target == ("yo",)
    assert len(found.without("en").gain) == 0, "a language that is left out helps nobody either"


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [
        ("csv", [{"target": "sw", "gain": 0.1}], "has no column transfer, target_rows"),
        ("json", rows(gain="much"), "column gain"),
        ("parquet", rows(word_overlap=None), "column word_overlap"),
        ("json", rows(gain=None), "column gain"),
        ("csv", rows()[:1], "at least two targets"),
    ],
)
def test_bad_columns_are_named(tmp_path: Path, kind: str, table: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_transfers(write(tmp_path, kind, table))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("swh", "sw"),
        ("swa", "sw"),
        ("swh_Latn", "sw"),
        ("arb", "ar"),
        ("cmn", "zh"),
        ("tgl", "fil"),
        ("bul", "bul"),
        ("bg", "bul"),
        ("arz", "ar"),
        ("SW", "sw"),
        ("sw-KE", "sw"),
    ],
)
def test_another_code_of_a_language_is_that_language(tmp_path: Path, given: str, code: str) -> None:
    found = read_transfers(write(tmp_path, "csv", [*rows(), *rows(transfer=given)]))
    assert found.transfer == ("en", "en", code, code)
    assert len(read_transfers(write(tmp_path, "csv", [*rows(), {**rows()[0], "target": given}])).without(code).gain) <= 2


@pytest.mark.parametrize("given", ["Swahili", "xx", ""])
def test_what_is_no_code_of_a_language_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match=rf"column transfer has '{given}', which is not a language code.*such as 'sw'.*'bul'"):
        read_transfers(write(tmp_path, "json", rows(transfer=given)))


def test_two_codes_of_one_target_are_one_target(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two targets; found sw"):
        read_transfers(write(tmp_path, "csv", [{**row, "target": code} for row, code in zip(rows(), ("sw", "swh"), strict=True)]))


def test_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_transfers(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match=r"ends in \.csv"):
        read_transfers("transfers.xlsx")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ConfigError, match="not a table of transfers"):
        read_transfers(str(broken))


def test_the_table_of_the_package_is_whole() -> None:
    found = read_transfers()
    assert found.source == "atlas"
    assert 50 <= len(found.gain) <= 100
    assert {*found.target, *found.transfer} <= set(LANGUAGES)
    pairs = list(zip(found.target, found.transfer, strict=True))
    assert len(set(pairs)) == len(pairs)
    assert all(target != transfer for target, transfer in pairs)
