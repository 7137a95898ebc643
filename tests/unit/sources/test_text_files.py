"""Text files: every cell as it is written, in a file and in a folder; what cannot be read is named by file, row and column."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compass_ray.config import ConfigError, SourceConfig
from compass_ray.sources.column_mapping import load_rows
from compass_ray.sources.text_files import read_lines, read_text_file

TYPED_LOOKS = [
    "1914-07-28",
    "1914-07-28T10:00:00Z",
    "00120",
    "0.50",
    "1e5",
    "True",
    "false",
    "NA",
    "null",
    "NaN",
    "",
    "-5",
    "10:30",
]
ROW = ("prompt", "response")
IN_PLACE = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def _csv(rows: list[tuple[str, str]], delimiter: str = ",") -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([ROW, *rows])
    return file.getvalue()


def _json_lines(rows: list[tuple[Any, Any]]) -> str:
    return "".join(json.dumps(dict(zip(ROW, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)


def _json_array(rows: list[tuple[Any, Any]]) -> str:
    return json.dumps([dict(zip(ROW, row, strict=True)) for row in rows], indent=1)


def _tsv(rows: list[tuple[str, str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in [ROW, *rows])


WRITERS: dict[str, Callable[[list[tuple[Any, Any]]], str]] = {
    "csv": _csv,
    "jsonl": _json_lines,
    "ndjson": _json_lines,
    "json": _json_array,
    "tsv": _tsv,
}
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(TYPED_LOOKS)
line = text.map(lambda each: "".join(c for c in each if c not in "\t\r\n") or "-")


def _read(path: Path) -> list[tuple[Any, ...]]:
    table = load_rows(SourceConfig(path=str(path)), ROW)
    assert {table.schema.field(name).type for name in ROW} == {pa.string()}
    return [tuple(row[name] for name in ROW) for row in table.to_pylist()]


@pytest.mark.parametrize("kind", WRITERS)
@IN_PLACE
@given(data=st.data())
def test_any_text_arrives_as_written(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    cell = line if kind == "tsv" else text
    rows = data.draw(st.lists(st.tuples(cell, cell), min_size=1, max_size=8))
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(WRITERS[kind](rows).encode())
    assert _read(path) == rows


@pytest.mark.parametrize("kind", ["csv", "jsonl", "tsv"])
@settings(IN_PLACE, max_examples=2)
@given(data=st.data())
def test_any_text_arrives_as_written_in_a_folder(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    cell = line if kind == "tsv" else text
    rows = [(each, each) for each in TYPED_LOOKS if each or kind != "tsv"] + data.draw(
        st.lists(st.tuples(cell, cell), max_size=4)
    )
    for number, part in enumerate((rows[:5], rows[5:])):
        (tmp_path / f"train-{number}.{kind}").write_bytes(WRITERS[kind](part).encode())
    assert _read(tmp_path) == rows


def test_a_column_of_one_look_is_not_typed(tmp_path: Path) -> None:
    for look in TYPED_LOOKS:
        for kind, write in WRITERS.items():
            path = tmp_path / f"rows.{kind}"
            path.write_text(write([(look, "x")] * 3), "utf-8")
            assert _read(path) == [(look, "x")] * 3


def test_numbers_in_json_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": 0.50, "response": true}\n{"prompt": 12345678901234567890123, "response": null}\n', "utf-8")
    assert _read(path) == [("0.50", "true"), ("12345678901234567890123", None)]


@pytest.mark.parametrize("name", ["Rows.JSONL", "ROWS.Csv", "rows.Json", "rows.TSV"])
def test_an_ending_counts_in_any_case(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(WRITERS[name.lower().split(".")[1]]([("a", "b")]), "utf-8")
    assert _read(tmp_path / name) == [("a", "b")]


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_compressed_file_is_read(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes], kind: str) -> None:
    packed = pack(WRITERS[kind]([("0.50", "b")]).encode())
    path = tmp_path / f"train.{kind}.{ending}"
    path.write_bytes(packed)
    assert _read(path) == _read(tmp_path) == [("0.50", "b")]
    path.write_bytes(packed[:-6])
    with pytest.raises(ConfigError, match=rf"train\.{kind}\.{ending}: cannot be read as a table: .*compressed file"):
        _read(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_marks_and_line_ends_change_nothing(tmp_path: Path, kind: str, encoding: str, end: str) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(WRITERS[kind]([("ሀ b", "x"), ("c", "\x00")]).replace("\r\n", "\n").replace("\n", end).encode(encoding))
    assert _read(path) == [("ሀ b", "x"), ("c", "\x00")]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_row_of_megabytes_is_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"rows.{kind}").write_text(WRITERS[kind]([("a", "x" * (3 << 20))]), "utf-8")
    assert len(_read(tmp_path / f"rows.{kind}")[0][1]) == 3 << 20


def test_more_rows_than_one_batch_keep_their_order_and_late_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows: list[dict[str, Any]] = [{"prompt": str(n)} for n in range(9000)] + [{"prompt": "last", "response": "x"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    table = read_text_file(str(path))
    assert table.to_pylist() == [{"prompt": row["prompt"], "response": row.get("response")} for row in rows]


def test_other_columns_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    other = [1, "a", [1], {"b": []}, None, True, "\ud800"]
    path.write_text("".join(json.dumps({"prompt": "a", "response": "b", "other": each}) + "\n" for each in other), "utf-8")
    assert _read(path) == [("a", "b")] * len(other)


def _refused(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        _read(path)
    message = str(raised.value)
    for word in ("Arrow", "codec", "pyarrow", "Expecting", "straddling", "JSON parse error"):
        assert word not in message
    return message


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (["a"], "row 2 of column 'response' has a list; write text, or map another column"),
        ({"a": 1}, "row 2 of column 'response' has an object; write text"),
        ("\ud83d", r"row 2 of column 'response' has half a character (U+D83D)"),
    ],
)
def test_a_cell_that_is_no_text_is_named(tmp_path: Path, value: Any, found: str) -> None:
    lines = "".join(json.dumps(dict(zip(ROW, row, strict=True))) + "\n" for row in [("a", "b"), ("c", value)])
    for path in (tmp_path / "train.jsonl", tmp_path):
        (tmp_path / "train.jsonl").write_text(lines, "utf-8")
        assert f"{tmp_path / 'train.jsonl'}: {found}" in _refused(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "tsv"])
def test_bytes_of_another_encoding_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(WRITERS[kind]([("a", "b"), ("caf\u00e9 x", "d")]).encode("latin-1"))
    assert _refused(path) == (
        f"{path}: row 2 of column 'prompt' has the byte 0xE9, which is not UTF-8; write the file again as UTF-8"
    )


def test_lists_and_objects_of_parquet_are_named(tmp_path: Path) -> None:
    for value, found in ((["a"], "a list"), ({"a": "b"}, "an object")):
        pq.write_table(pa.table({"prompt": ["a", "b"], "response": [None, value]}), tmp_path / "rows.parquet")
        assert f"row 2 of column 'response' has {found}; write text" in _refused(tmp_path / "rows.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "response": pa.array([b"\xff"])}), tmp_path / "rows.parquet")
    assert "column 'response' is of type binary and cannot be read as text" in _refused(tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        (
            "rows.jsonl",
            '{"prompt": "a"}\n{"prompt": \n',
            "line 2 is not JSON from character 11 on; write one object on each line",
        ),
        ("rows.json", '[{"prompt": "a"},\n {"prompt"]', "line 2 is not JSON from character 11 on"),
        ("rows.jsonl", '{"prompt": "a"}\n[1]\n', "line 2 is not a JSON object; write one object for each row"),
        ("rows.json", '["a"]', "row 1 is not a JSON object"),
        ("rows.jsonl", "[" * 100_000, "line 1 has too many brackets within brackets"),
        ("rows.csv", "prompt,response\na,b\nc,d,e\n", "row 2 (line 3) has 3 cells, and the first line names 2 columns"),
        ("rows.csv", 'prompt,response\na,"b\n', "the quotes of line 2 do not match"),
        ("rows.csv", "prompt,prompt\n", "the first line names the column 'prompt' twice"),
        ("rows.csv", "", "it is empty; write the names of the columns on the first line"),
        ("rows.parquet", "PAR1 no", "it is no complete Parquet file"),
    ],
)
def test_a_file_of_the_wrong_form_is_named_with_the_line(tmp_path: Path, name: str, content: str, found: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    assert _refused(tmp_path / name).startswith(f"{tmp_path / name}: cannot be read as a table: {found}")


def test_a_damaged_file_of_a_folder_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "response": ["b"]}), tmp_path / "train-0.parquet")
    (tmp_path / "train-1.parquet").write_bytes(b"PAR1 no")
    assert _refused(tmp_path).startswith(f"{tmp_path / 'train-1.parquet'}: cannot be read as a table")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_conversations_are_refused_as_texts(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    rows = [{"messages": None}, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with pytest.raises(ConfigError) as raised:
        load_rows(SourceConfig(path=str(path), columns=dict.fromkeys(ROW, "messages")), ROW)
    assert "row 2 of column 'messages' has a conversation; write columns: {messages: messages}" in str(raised.value)


def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"the hub was asked for {args}")

    monkeypatch.setattr(datasets, "load_dataset", refuse)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("rows.xlsx", "files of this kind are not read; give .parquet, .jsonl"),
        ("rwos.jsonl", "the file does not exist; the nearest name is '.*rows.jsonl'"),
        ("folde/train", "the folder does not exist; the nearest name is '.*folder'"),
        ("folder/nothing-like-it", "the folder does not exist; give .parquet"),
    ],
)
def test_the_hub_is_never_asked_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, found: str) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("rows.xlsx", "rows.jsonl"):
        (tmp_path / name).write_text("{}")
    _no_hub(monkeypatch)
    with pytest.raises(ConfigError, match=found):
        load_rows(SourceConfig(path=str(tmp_path / path)), ROW)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=found.replace(".*", "")):
        load_rows(SourceConfig(path=path if "/" in path and path.startswith("folder/") else f"./{path}"), ROW)


def test_a_remote_address_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="rows are read from files on this machine; download them"):
        load_rows(SourceConfig(path="s3://bucket/rows.parquet"), ROW)


def test_an_upper_case_ending_in_a_folder_is_not_left_out_silently(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(_json_lines([("a", "b")]), "utf-8")
    (tmp_path / "TRAIN-2.JSONL").write_text(_json_lines([("c", "d")]), "utf-8")
    assert "rename 'TRAIN-2.JSONL' to 'train-2.jsonl'" in _refused(tmp_path)


@pytest.mark.parametrize(
    "names", [("train.jsonl", "train.csv"), ("a.jsonl", "b.tsv"), ("a.csv", "b.json"), ("a.csv", "b.parquet")]
)
def test_a_folder_of_several_formats_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"prompt": ["a"], "response": ["b"]}), tmp_path / name)
        else:
            text = _csv([("a", "b")], "\t" if name.endswith(".tsv") else ",") if name[-2:] == "sv" else _json_lines([("a", "b")])
            (tmp_path / name).write_text(text, "utf-8")
    assert "the split 'train' has files of several formats" in _refused(tmp_path)
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: '{names[0]}'\n---\n")
    assert load_rows(SourceConfig(path=str(tmp_path)), ROW).num_rows == 1


def test_descriptions_beside_tables_are_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "response": ["b"]}), tmp_path / "train.parquet")
    for name in ("dataset_info.json", ".hidden.csv", "statistics.json"):
        (tmp_path / name).write_text("{}")
    assert load_rows(SourceConfig(path=str(tmp_path)), ROW).num_rows == 1


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_a_file_of_no_compression_is_named(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"rows.jsonl{ending}").write_text(_json_lines([("a", "b")]), "utf-8")
    assert f"it is no {ending[1:]} file, or is damaged" in _refused(tmp_path / f"rows.jsonl{ending}")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
@pytest.mark.parametrize("exclude", [{}, {"kind": ("a",)}])
def test_a_file_without_rows_is_named(tmp_path: Path, name: str, exclude: dict[str, tuple[str, ...]]) -> None:
    (tmp_path / name).write_text("prompt,response,kind\n" if name == "rows.csv" else "")
    with pytest.raises(ConfigError, match=f"{name} has no rows; it needs prompt, response"):
        load_rows(SourceConfig(path=str(tmp_path / name), exclude=exclude), ROW)


def test_unused_columns_of_lists_are_not_kept(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "b", "vector": [0.5] * 1_000} for _ in range(100)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read_text_file(str(tmp_path / "rows.jsonl"))
    assert table["vector"].null_count == 100
    assert table.nbytes < 10_000


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_are_counted_before_filters_and_excluded_cells_do_not_count(tmp_path: Path, kind: str) -> None:
    cells: list[tuple[str, Any]] = [("a", ["x"]), ("b", None), ("c", ["y"]), ("a", ["z"]), ("c", ["v"])]
    rows = [{"prompt": "p", "response": cell, "kind": each} for each, cell in cells]
    path = tmp_path / f"train.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for excluded, row in ((("b",), 1), (("a",), 3), (("a", "b"), 3), (("b", "c"), 1)):
        with pytest.raises(ConfigError, match=f"row {row} of column 'response' has a list"):
            load_rows(SourceConfig(path=str(path), exclude={"kind": excluded}), ROW)
    with pytest.raises(ConfigError, match="row 3 of column 'response' has a list"):
        load_rows(SourceConfig(path=str(path), exclude={"kind": ("a",)}, include={"kind": "c"}), ROW)
    if kind == "jsonl":
        assert load_rows(SourceConfig(path=str(path), exclude={"kind": ("a", "c")}), ROW)["response"].to_pylist() == [None]


def test_rows_of_the_second_file_of_a_folder_are_counted_from_its_start(tmp_path: Path) -> None:
    for number, cells in enumerate((["x", "y"], [["bad"], "z", ["worse"]])):
        rows = [{"prompt": "p", "response": cell, "kind": f"{number}-{n}"} for n, cell in enumerate(cells)]
        (tmp_path / f"train-{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for excluded, row in ((("0-0",), 1), (("1-0",), 3)):
        with pytest.raises(ConfigError, match=f"train-1.jsonl: row {row} of column 'response' has a list"):
            load_rows(SourceConfig(path=str(tmp_path), exclude={"kind": excluded}), ROW)


@pytest.mark.parametrize(("ending", "compress"), [("", bytes), (".xz", lzma.compress), (".gz", gzip.compress)])
def test_lines_of_text_are_read_without_blank_ones(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]) -> None:
    file = tmp_path / f"ha.txt{ending}"
    file.write_bytes(compress("ɗan\r\n\n  \nb c \nd".encode()))
    assert read_lines(str(file)) == ["ɗan", "b c ", "d"]
    assert read_lines(str(file), 2) == ["ɗan", "b c "]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no text"),
        (b"\n \n", "has no text"),
        (b"a\n\xff\xfe\n", "text 2 is not UTF-8"),
        (None, "cannot be read as text"),
    ],
)
def test_a_text_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "ha.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_lines(str(file))
