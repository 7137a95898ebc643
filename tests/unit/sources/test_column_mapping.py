"""Loading: every layout through one door, and what a source lacks said with the way on."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError, PoolConfig, SourceConfig
from compass_ray.sources.atlas import SMALL, atlas_pool, atlas_test
from compass_ray.sources.column_mapping import load_rows, read_raw, source_content
from compass_ray.sources.guides import read_guide_and_test
from tests.unit.sources.atlas_export import export

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
    assert load_rows(SourceConfig(path=_parquet(tmp_path, columns)), needed).to_pydict() == expected


def test_own_columns_are_named(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"frage": ["a"], "antwort": [7], "fach": ["law"]})
    names = {"prompt": "frage", "response": "antwort", "subject": "fach"}
    found = load_rows(SourceConfig(path=path, columns=names, language="deu"), ROW)
    assert found.to_pydict() == {"prompt": ["a"], "response": ["7"], "subject": ["law"], "language": ["deu"]}


def test_json_lines_are_read(tmp_path: Path) -> None:
    path = _lines(
        tmp_path, [{"prompt": "ሀ", "response": "x", "language": "am"}, {"prompt": "b", "response": None, "language": "am"}]
    )
    assert load_rows(SourceConfig(path=path), ROW)["response"].to_pylist() == ["x", None]


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"prompt": ["a"], "language": ["sw"]})
    with pytest.raises(ConfigError, match=r"no column for response; it has prompt, language.*columns: \{response: "):
        load_rows(SourceConfig(path=path), ROW)


def test_filters_keep_and_leave_out(tmp_path: Path) -> None:
    path = _parquet(
        tmp_path, {**COLLECTION, **{k: v * 4 for k, v in COLLECTION.items()}, "template_id": [1, 2, 1, 3], "n": list("abcd")}
    )
    source = SourceConfig(path=path, columns={"prompt": "n"}, include={"language": "swh"}, exclude={"template_id": ("2", "3")})
    assert load_rows(source, ("prompt",))["prompt"].to_pylist() == ["a", "c"]


def test_a_filter_on_no_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a filter names the column 'tempalte_id'; it has \['inputs'"):
        load_rows(SourceConfig(path=_parquet(tmp_path, COLLECTION), include={"tempalte_id": "1"}), ROW)


def test_one_file_for_many_languages_gives_each_its_own(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"prompt": list("abc"), "language": ["sw", "swh", "hi"]})
    assert load_rows(SourceConfig(path=path), ("prompt",), "sw")["prompt"].to_pylist() == ["a", "b"]


def test_a_file_for_each_language_is_found_by_its_name(tmp_path: Path) -> None:
    for code in ("sw", "hi"):
        _parquet(tmp_path, {"prompt": [f"in {code}"]}, f"{code}.parquet")
    source = SourceConfig(path=str(tmp_path / "{language}.parquet"))
    assert load_rows(source, ("prompt",), "hi")["prompt"].to_pylist() == ["in hi"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.parquet", None, "the file does not exist"),
        ("bad.parquet", b"PAR1 but not really", "cannot be read as a table"),
        ("bad.jsonl", b'{"prompt": "a"', "cannot be read as a table"),
    ],
)
def test_an_unreadable_file_is_an_error_with_its_path(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name}: {told}"):
        load_rows(SourceConfig(path=str(tmp_path / name)), ROW)


def test_an_unset_variable_of_a_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE is not set"):
        load_rows(SourceConfig(path="${NOT_SET_ANYWHERE}/rows.parquet"), ROW)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    export(folder, SMALL)
    return folder


def test_a_pool_in_the_folder_layout_of_the_hub_is_the_atlas_s_own(exported: Path) -> None:
    through_files = load_rows(SourceConfig(path=str(exported / "aya_dataset")), ROW)
    assert through_files.equals(load_rows(SourceConfig(path="atlas:small"), ROW))
    assert through_files.num_rows == atlas_pool(SMALL).num_rows


def test_items_in_the_folder_layout_of_the_hub_are_the_atlas_s_own(exported: Path) -> None:
    source = SourceConfig(path=str(exported / "global_mmlu"), name="{language}", split="test")
    through_files = load_rows(source, ITEM, "sw")
    assert through_files.equals(load_rows(SourceConfig(path="atlas:small", split="test"), ITEM, "sw"))
    assert through_files.num_rows == atlas_test("sw", SMALL).num_rows


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"split": "nosuch"}, r"\(sw, nosuch\): cannot be loaded: .*nosuch.*Check the name, the split"),
        ({"name": "{tongue}"}, r"the name '\{tongue\}' may contain \{language\}"),
        ({"name": "xx"}, r"\(xx, test\): cannot be loaded"),
    ],
)
def test_what_a_data_set_does_not_have_is_said(exported: Path, changes: dict[str, str], told: str) -> None:
    source = {"path": str(exported / "global_mmlu"), "name": "{language}", "split": "test"} | changes
    with pytest.raises(ConfigError, match=told):
        load_rows(SourceConfig.model_validate(source), ITEM, "sw")


@pytest.mark.parametrize(
    ("split", "language", "told"),
    [("valid", "sw", "the splits train, dev and test, not 'valid'"), ("dev", "yo", "no 'yo'; it has am, ")],
)
def test_what_the_atlas_does_not_have_is_said(split: str, language: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_rows(SourceConfig(path="atlas:small", split=split), ITEM, language)


def test_content_counts_and_its_place_does_not(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        _parquet(tmp_path / name, AYA)
    here, there = (SourceConfig(path=str(tmp_path / name / "rows.parquet")) for name in ("here", "there"))
    assert source_content(here) == source_content(there)
    _parquet(tmp_path / "there", {**AYA, "inputs": ["a", "c"]})
    assert source_content(here) != source_content(there)
    assert source_content(SourceConfig(path="organisation/set")) == ""


def test_content_of_a_large_file_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"0123456789" * 10**6)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    tracemalloc.start()
    found = source_content(SourceConfig(path=str(file)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == content_hash(f"rows.parquet:{digest}")
    assert peak < 2**20


def test_a_source_is_joined_by_others(tmp_path: Path) -> None:
    more = SourceConfig(path=_parquet(tmp_path, {**COLLECTION, "inputs": ["c"]}, "more.parquet"))
    source = SourceConfig(path=_parquet(tmp_path, AYA), extra_sources=(more,))
    assert load_rows(source, ROW)["prompt"].to_pylist() == ["a", "b", "c"]
    assert load_rows(source, ROW, "sw")["prompt"].to_pylist() == ["a", "c"]
    alone = source.model_copy(update={"extra_sources": ()})
    assert source_content(source) not in (source_content(alone), source_content(more))


def test_a_layout_that_is_named_is_not_guessed(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {**AYA, "prompt": ["p", "q"], "response": ["r", "s"]})
    assert load_rows(SourceConfig(path=path), ROW)["prompt"].to_pylist() == ["a", "b"]
    assert load_rows(SourceConfig(path=path, layout="own"), ("prompt",))["prompt"].to_pylist() == ["p", "q"]
    with pytest.raises(ConfigError, match="no column for answer"):
        load_rows(SourceConfig(path=path, layout="own"), ("prompt", "answer"))


def test_tables_of_text_are_read_by_their_line_of_names(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text('prompt\tresponse\tlanguage\n"a\tx, y\tsw\n', "utf-8")
    (tmp_path / "rows.csv").write_text('prompt,response,language\n"a, b",x,sw\n', "utf-8")
    assert load_rows(SourceConfig(path=str(tmp_path / "rows.tsv")), ROW).to_pylist() == [
        {"prompt": '"a', "response": "x, y", "language": "sw"}
    ]
    assert load_rows(SourceConfig(path=str(tmp_path / "rows.csv")), ROW)["prompt"].to_pylist() == ["a, b"]


def test_code_of_a_data_set_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", "utf-8")
    with pytest.raises(ConfigError, match=r"scripted \(train\): cannot be loaded: .*scripts.*Give the path of downloaded files"):
        load_rows(SourceConfig(path=str(folder)), ROW)
    assert not (tmp_path / "ran").exists()


AYA_COLUMNS = ["inputs", "targets", "language", "language_code", "annotation_type", "user_id"]


@pytest.mark.shared_data
def test_local_copies_have_the_columns_of_the_hub_and_are_read(shared_data: Path) -> None:
    aya = SourceConfig(path=str(shared_data / "aya_dataset"), split="test")
    assert read_raw(aya).column_names == AYA_COLUMNS
    assert load_rows(aya, ROW).num_rows == 1050
    noise = SourceConfig(path=str(shared_data / "aya_collection"), name="translated_mlqa", split="validation")
    assert {"inputs", "targets", "dataset_name", "template_id", "language"} < set(read_raw(noise).column_names)
    assert load_rows(noise, ROW).num_rows == 7250
    english = noise.model_copy(update={"include": {"dataset_name": "MLQA-en (T)"}})
    assert 0 < load_rows(english, ROW, "hi").num_rows <= 1148


@pytest.mark.shared_data
@pytest.mark.parametrize("code", ["sw", "mg", "zh", "fil"])
def test_guide_and_test_sets_of_local_global_mmlu_share_nothing(shared_data: Path, code: str) -> None:
    guides, tests = (
        SourceConfig(path=str(shared_data / "global_mmlu"), name="{language}", split=split) for split in ("dev", "test")
    )
    found = read_guide_and_test(PoolConfig(guides=guides, tests=tests), code)
    assert found.removed == 0
    assert {len(options) for options in found.test["options"].to_pylist()} == {4}
