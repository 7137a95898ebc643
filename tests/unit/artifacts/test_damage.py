"""A damaged, missing or foreign file of a run is found by `status --verify`, and no reader takes it for what was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import registry
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.artifacts import MANIFEST, ArtifactError, Identity, RunDir
from compass_ray.artifacts.errors import DamagedFileError, MissingFileError
from compass_ray.artifacts.verification import verify_run
from compass_ray.clustering.versions.spaces import ClusterSpace, load_space_clusterer
from compass_ray.records.evaluations import EvaluationRecord
from compass_ray.report.explain import explain_row
from compass_ray.report.run_reader import RunReader
from compass_ray.row_selection.load import open_pool, open_problems
from compass_ray.training.fisher import load_fisher
from tests import former_run
from tests.unit.command_line import Command

IDENTITY = Identity("select", {"budget": 0.8}, {"pool": "aa"})
VERSIONS = ("random", "target", "v0001", "v0002")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return former_run.extract(tmp_path_factory.mktemp("former"))


def _outputs(run: RunDir) -> list[str]:
    """Every file that a manifest of the run lists."""
    manifests = sorted(Path(run.path).rglob(MANIFEST))
    names = [manifest.parent.relative_to(run.path).as_posix() for manifest in manifests]
    return [f"{name}/{output.path}" for name in names for output in run.artifact(name).require().outputs]


@contextmanager
def _changed(path: Path, change: Callable[[bytes], bytes | None]) -> Iterator[None]:
    before = path.read_bytes()
    after = change(before)
    path.unlink() if after is None else path.write_bytes(after)
    try:
        yield
    finally:
        path.write_bytes(before)


def _flip(at: float) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        position = int(at * (len(data) - 1))
        return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]

    return change


shares = st.floats(0, 1)
changes = st.one_of(
    shares.map(_flip),
    shares.map(lambda share: lambda data: data[: int(share * (len(data) - 1))]),
    st.just(lambda data: data + b"\0"),
    st.just(lambda data: None),
)


def _message_of(read: Callable[..., Any], *args: Any) -> str | None:
    """The error for users that reading raises; None if it succeeds. Any other error fails the test."""
    try:
        read(*args)
    except ArtifactError as error:
        return str(error)
    return None


def _read_report(run: RunDir) -> None:
    reader = RunReader(run)
    for method in ("compass", "random", "target"):
        reader.selected_table(method, "sw")
        reader.allocation(method, "sw")
        reader.scored_items(method, "sw")
    reader.scored_items("zero_shot", "sw")
    reader.histories("sw")
    reader.updates("sw")
    reader.sweep("sw")


def _explain(run: RunDir) -> None:
    explain_row(run, "sw", _read_explained_row(run))


def _read_explained_row(run: RunDir) -> str:
    return str(run.selection("compass", "sw").read_table("rows.parquet")["row_id"][0])


def _select(run: RunDir) -> None:
    config = run.read_config()
    open_problems(config, run, open_pool(config, run, "sw"), ["sw"])


def _read_evaluation(run: RunDir) -> None:
    run.guide("sw").read_table("test.parquet")
    for method in ("zero_shot", "compass", "random", "target"):
        EvaluationRecord.read(run.evaluation(method, "sw"))


def _load_to_serve(run: RunDir) -> None:
    load_space_clusterer(run, ClusterSpace("clusters"))
    for version in VERSIONS:
        registry.verify_servable(run, registry.AdapterName("sw", version))
        with run.adapter("sw", version).local_folder() as folder:
            read_adapter(folder)


READERS = (_read_report, _explain, _select, _read_evaluation, _load_to_serve)


@settings(max_examples=25)
@given(data=st.data(), change=changes)
def test_every_reader_works_or_names_the_damaged_file_and_the_remedy(run: RunDir, data: st.DataObject, change: Any) -> None:
    file = data.draw(st.sampled_from(_outputs(run)))
    path = Path(run.path, file)
    with _changed(path, change):
        problems = verify_run(run).problems
        assert [f"{problem.artifact}/{problem.file}" for problem in problems] == [file]
        for told in filter(None, (_message_of(read, run) for read in READERS)):
            assert str(path) in told
            assert f"remove {run.path}/{problems[0].artifact} and run again: compass-ray " in told
    assert verify_run(run).problems == ()


@pytest.mark.parametrize("read", READERS)
def test_the_readers_read_what_they_should(run: RunDir, read: Callable[[RunDir], None]) -> None:
    """An undamaged run reads without an error, and a damaged file of each reader is one."""
    read(run)
    file = {
        _read_report: "clusters/sweep.json",
        _explain: "pool/rows.parquet",
        _select: "clusters/vectors.npy",
        _read_evaluation: "guides/sw/test.parquet",
        _load_to_serve: "adapters/sw/v0002/adapter_model.safetensors",
    }[read]
    with (
        _changed(Path(run.path, file), _flip(0.5)),
        pytest.raises(ArtifactError, match=f"{file} is damaged .*; remove .* and run"),
    ):
        read(run)


@settings(max_examples=25)
@given(change=changes.filter(lambda change: change(b"{}") is not None))
def test_a_damaged_manifest_of_an_earlier_version_is_found_or_changes_no_output(run: RunDir, change: Any) -> None:
    """Such a manifest has no digest, so a change of a measured value is not seen."""
    before = run.pool.require()
    with _changed(Path(run.pool.path, MANIFEST), change):
        found, told = verify_run(run), _message_of(run.pool.require)
        assert found.has_damaged_manifest == (told is not None)
        assert (
            f"{run.pool.path}/{MANIFEST} is damaged" in told
            if told
            else found.problems or run.pool.require().outputs == before.outputs
        )


def _publish(folder: Path) -> RunDir:
    made = RunDir(str(folder))
    writer = made.pool.begin(IDENTITY)
    writer.write_json("sweep.json", {"clusters": [{"size": 3}]})
    writer.write_array("centroids.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.publish({"loss": 0.5, "rows": 3})
    return made


@settings(max_examples=25)
@given(at=shares)
def test_any_change_of_a_manifest_is_seen_or_has_no_effect(tmp_path_factory: pytest.TempPathFactory, at: float) -> None:
    made = _publish(tmp_path_factory.mktemp("run") / "run")
    before = made.pool.require()
    with _changed(Path(made.pool.path, MANIFEST), _flip(at)):
        if told := _message_of(made.pool.require):
            assert f"{made.pool.path}/{MANIFEST} is damaged" in told
        else:
            assert made.pool.require().model_copy(update={"digest": before.digest}) == before


def test_status_lists_what_is_damaged_missing_and_extra(tmp_path: Path, compass_ray: Command, run: RunDir) -> None:
    assert compass_ray(f"status {run.path} --verify").code == 0
    vectors, items, foreign = (
        Path(run.path, file) for file in ("clusters/vectors.npy", "evaluations/random/sw/items.parquet", "pool/notes.txt")
    )
    foreign.write_text("mine")
    try:
        with _changed(vectors, _flip(0.9)), _changed(items, lambda data: None):
            done = compass_ray(f"status {run.path} --verify")
            listed = json.loads(compass_ray(f"status {run.path} --verify --json").out)
    finally:
        foreign.unlink()
    assert done.code == 1
    assert f"damaged: {vectors} is damaged (its SHA-256 differs from the manifest); remove {vectors.parent}" in done.out
    assert f"missing: {items} is missing; remove {items.parent} and run again: compass-ray adapt --run {run.path}" in done.out
    assert f"extra: {foreign} is not in the manifest" in done.out
    assert f"verified {len(_outputs(run))} files (" in done.out
    assert [(each["kind"], each["file"]) for each in listed["problems"]] == [
        ("damaged", "vectors.npy"),
        ("missing", "items.parquet"),
        ("extra", "notes.txt"),
    ]
    assert listed["stages"][0] == {"stage": "pool", "whole": 2, "total": 2}


def test_status_shows_a_damaged_manifest_too(compass_ray: Command, run: RunDir) -> None:
    with _changed(Path(run.pool.path, MANIFEST), lambda data: data[:100]):
        done = compass_ray(f"status {run.path} --verify")
    assert done.code == 1
    assert f"damaged: {run.pool.path}/{MANIFEST} is damaged" in done.out


# Decoders, without a manifest that would find the damage first.


@pytest.mark.parametrize(
    ("file", "content", "read"),
    [
        ("t.parquet", b"PAR1 nothing PAR1", lambda a, f: a.read_table(f)),
        ("t.parquet", b"", lambda a, f: a.read_table(f)),
        ("t.parquet", b"", lambda a, f: a.row_groups(f)),
        ("t.arrow", b"nothing", lambda a, f: a.map_table(f)),
        ("t.arrow", b"", lambda a, f: a.map_table(f)),
        ("a.npy", b"nothing", lambda a, f: a.read_array(f)),
        ("a.npy", b"", lambda a, f: a.map_array(f)),
        ("a.npy", b"\x80\x04N.", lambda a, f: a.read_array(f)),
        ("j.json", b"{\n" * 85, lambda a, f: a.read_json(f)),
        ("j.json", b"\xff", lambda a, f: a.read_json(f)),
        ("j.json", b"[" * 100_000, lambda a, f: a.read_json(f)),
    ],
)
@pytest.mark.parametrize("place", ["disk", "S3"])
def test_every_decoding_error_names_file_artifact_and_command(
    request: pytest.FixtureRequest, tmp_path: Path, place: str, file: str, content: bytes, read: Callable[..., Any]
) -> None:
    made = RunDir(str(tmp_path / "run") if place == "disk" else request.getfixturevalue("s3_uri"))
    made.clusters.store_bytes(file, content)
    with pytest.raises(DamagedFileError) as raised:
        read(made.clusters, file)
    told = str(raised.value)
    assert told.startswith(f"{made.clusters.path}/{file} is damaged (")
    assert told.endswith(f"; remove {made.clusters.path} and run again: compass-ray adapt --run {made.uri.partition('?')[0]}")
    assert "pickle" not in told


def test_an_array_of_objects_is_refused_without_advice_to_unpickle_it(tmp_path: Path) -> None:
    made = RunDir(str(tmp_path))
    made.clusters.store_bytes("a.npy", b"")
    np.save(Path(made.clusters.path, "a.npy"), np.array([{}], dtype=object), allow_pickle=True)
    for read in (made.clusters.read_array, made.clusters.map_array):
        with pytest.raises(DamagedFileError, match=r"a\.npy is damaged \((?!.*pickle)"):
            read("a.npy")


def test_a_record_of_another_shape_is_a_damaged_file(tmp_path: Path) -> None:
    made = RunDir(str(tmp_path))
    made.evaluation("compass", "sw").store_bytes(EvaluationRecord.FILE, b'{"low_subjects": 7}')
    with pytest.raises(
        DamagedFileError, match=r"evaluations/compass/sw/results\.json is damaged .*; remove .*compass/sw and run"
    ):
        EvaluationRecord.read(made.evaluation("compass", "sw"))


def test_a_missing_shard_of_the_embeddings_is_an_error(tmp_path: Path) -> None:
    made = RunDir(str(tmp_path))
    writer = made.embeddings.begin(IDENTITY)
    for part in range(3):
        writer.write_table(f"part-{part:05d}.parquet", pa.table({"row_id": [f"{part}"]}))
    writer.publish()
    Path(made.embeddings.path, "part-00001.parquet").unlink()
    with pytest.raises(MissingFileError, match=r"part-00001\.parquet is missing; remove"):
        made.embeddings.read_parts()


@settings(max_examples=25)
@given(at=shares)
def test_a_flipped_byte_in_a_page_of_a_table_is_seen_by_its_checksum(tmp_path_factory: pytest.TempPathFactory, at: float) -> None:
    """As on an object store, or in a table too large to be hashed before it is read."""
    made = RunDir(str(tmp_path_factory.mktemp("run")))
    table = pa.table({"value": np.random.default_rng(0).integers(0, 1 << 62, 500)})
    made.pool.store_table("rows.parquet", table)
    path = Path(made.pool.path, "rows.parquet")
    column = pq.read_metadata(path).row_group(0).column(0)
    first, size = column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size
    data = bytearray(path.read_bytes())
    data[first + int(at * (size - 1))] ^= 0x10
    path.write_bytes(bytes(data))
    if told := _message_of(made.pool.read_table, "rows.parquet"):
        assert "rows.parquet is damaged" in told
    else:
        assert made.pool.read_table("rows.parquet").equals(table)


def test_damaged_fisher_information_names_its_artifact(tmp_path: Path) -> None:
    (tmp_path / "fisher.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(Exception, match=r"fisher\.safetensors is damaged .*; remove .* and run again"):
        load_fisher(tmp_path / "fisher.safetensors")
