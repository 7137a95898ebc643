"""Loading: every layout through one door, and what a source lacks said with the way on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources.atlas import SMALL, atlas_pool, atlas_test, export
from compass_ray.sources.loading import load, source_content

ROW = ("prompt", "response", "language")
ITEM = ("prompt", "option_a", "option_b", "option_c", "option_d", "answer")
AYA = {"inputs": ["a", "b"], "targets": ["x", "y"], "language": ["Swahili", "Hindi"], "language_code": ["swh", "hin"]}
COLLECTION = {"inputs": ["a"], "targets": ["x"], "language": ["swh"], "template_id": ["1"], "dataset_name": ["MLQA"]}
OPTIONS = {f"option_{letter}": [letter] for letter in "abcd"}
MMLU = {"sample_id": ["1"], "subject": ["law"], "question": ["q"], **OPTIONS, "answer": ["C"]}


def _parquet(folder: Path, columns: dict[str, list[Any]], name: str = "rows.parquet") -> str:
    pq.write_table(pa.table(columns), folder / name)
    return str(folder / name)


def _lines(folder: Path, rows: list[dict[str, Any]]) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(file)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow copies of data sets that the loader keeps go where the test's other files go."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("columns", "needed", "expected"),
    [
        (AYA, ROW, {"prompt": ["a", "b"], "response": ["x", "y"], "language": ["swh", "hin"]}),
        (COLLECTION, ROW, {"prompt": ["a"], "response": ["x"], "language": ["swh"]}),
        (MMLU, ITEM, {"prompt": ["q"], **OPTIONS, "answer": ["C"], "subject": ["law"], "item_id": ["1"]}),
        (MMLU, ("prompt",), {"prompt": ["q"], "subject": ["law"], "item_id": ["1"]}),
        (
            {"prompt": ["a"], "response": ["x"], "language": ["sw"], "subject": ["money"], "note": ["-"]},
            ROW,
            {"prompt": ["a"], "response": ["x"], "language": ["sw"], "subject": ["money"]},
        ),
    ],
    ids=["Aya dataset", "Aya collection", "Global-MMLU", "Global-MMLU as guide", "own"],
)
def test_a_layout_is_known_by_its_columns(
    tmp_path: Path, columns: dict[str, list[Any]], needed: tuple[str, ...], expected: dict[str, list[Any]]
) -> None:
    assert load(SourceConfig(path=_parquet(tmp_path, columns)), needed).to_pydict() == expected


def test_own_columns_are_named(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"frage": ["a"], "antwort": [7], "fach": ["law"]})
    names = {"prompt": "frage", "response": "antwort", "subject": "fach"}
    found = load(SourceConfig(path=path, columns=names, language="deu"), ROW)
    assert found.to_pydict() == {"prompt": ["a"], "response": ["7"], "subject": ["law"], "language": ["deu"]}


def test_json_lines_are_read(tmp_path: Path) -> None:
    path = _lines(
        tmp_path, [{"prompt": "ሀ", "response": "x", "language": "am"}, {"prompt": "b", "response": None, "language": "am"}]
    )
    assert load(SourceConfig(path=path), ROW)["response"].to_pylist() == ["x", None]


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"prompt": ["a"], "language": ["sw"]})
    with pytest.raises(ConfigError, match=r"no column for response; it has prompt, language.*columns: \{response: "):
        load(SourceConfig(path=path), ROW)


def test_filters_keep_and_leave_out(tmp_path: Path) -> None:
    path = _parquet(
        tmp_path, {**COLLECTION, **{k: v * 4 for k, v in COLLECTION.items()}, "template_id": [1, 2, 1, 3], "n": list("abcd")}
    )
    source = SourceConfig(path=path, columns={"prompt": "n"}, where={"language": "swh"}, without={"template_id": ("2", "3")})
    assert load(source, ("prompt",))["prompt"].to_pylist() == ["a", "c"]


def test_a_filter_on_no_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a filter names the column 'tempalte_id'; it has \['inputs'"):
        load(SourceConfig(path=_parquet(tmp_path, COLLECTION), where={"tempalte_id": "1"}), ROW)


def test_one_file_for_many_languages_gives_each_its_own(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"prompt": list("abc"), "language": ["sw", "swh", "hi"]})
    assert load(SourceConfig(path=path), ("prompt",), "sw")["prompt"].to_pylist() == ["a", "b"]


def test_a_file_for_each_language_is_found_by_its_name(tmp_path: Path) -> None:
    for code in ("sw", "hi"):
        _parquet(tmp_path, {"prompt": [f"in {code}"]}, f"{code}.parquet")
    source = SourceConfig(path=str(tmp_path / "{language}.parquet"))
    assert load(source, ("prompt",), "hi")["prompt"].to_pylist() == ["in hi"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.parquet", None, "there is no such file"),
        ("bad.parquet", b"PAR1 but not really", "cannot be read as a table"),
        ("bad.jsonl", b'{"prompt": "a"', "cannot be read as a table"),
    ],
)
def test_an_unreadable_file_is_an_error_with_its_path(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name}: {told}"):
        load(SourceConfig(path=str(tmp_path / name)), ROW)


def test_an_unset_variable_of_a_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE is not set"):
        load(SourceConfig(path="${NOT_SET_ANYWHERE}/rows.parquet"), ROW)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    export(folder, SMALL)
    return folder


def test_a_pool_in_the_folder_layout_of_the_hub_is_the_atlas_s_own(exported: Path) -> None:
    through_files = load(SourceConfig(path=str(exported / "aya_dataset")), ROW)
    assert through_files.equals(load(SourceConfig(path="atlas:small"), ROW))
    assert through_files.num_rows == atlas_pool(SMALL).num_rows


def test_items_in_the_folder_layout_of_the_hub_are_the_atlas_s_own(exported: Path) -> None:
    source = SourceConfig(path=str(exported / "global_mmlu"), name="{language}", split="test")
    through_files = load(source, ITEM, "sw")
    assert through_files.equals(load(SourceConfig(path="atlas:small", split="test"), ITEM, "sw"))
    assert through_files.num_rows == atlas_test("sw", SMALL).num_rows


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"split": "nosuch"}, r"\(sw, nosuch\): cannot be loaded: .*nosuch.*Check the name, the split"),
        ({"name": "{tongue}"}, r"the name '\{tongue\}' may hold \{language\}"),
        ({"name": "xx"}, r"\(xx, test\): cannot be loaded"),
    ],
)
def test_what_a_data_set_does_not_have_is_said(exported: Path, changes: dict[str, str], told: str) -> None:
    source = {"path": str(exported / "global_mmlu"), "name": "{language}", "split": "test"} | changes
    with pytest.raises(ConfigError, match=told):
        load(SourceConfig.model_validate(source), ITEM, "sw")


@pytest.mark.parametrize(
    ("split", "language", "told"),
    [("valid", "sw", "the splits train, dev and test, not 'valid'"), ("dev", "yo", "no 'yo'; it has am, ")],
)
def test_what_the_atlas_does_not_have_is_said(split: str, language: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(SourceConfig(path="atlas:small", split=split), ITEM, language)


def test_content_counts_and_its_place_does_not(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        _parquet(tmp_path / name, AYA)
    here, there = (SourceConfig(path=str(tmp_path / name / "rows.parquet")) for name in ("here", "there"))
    assert source_content(here) == source_content(there)
    _parquet(tmp_path / "there", {**AYA, "inputs": ["a", "c"]})
    assert source_content(here) != source_content(there)
    assert source_content(SourceConfig(path="organisation/set")) == ""
