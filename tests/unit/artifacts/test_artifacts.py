"""Artifacts, complete or absent, on a disk and on an object store; and the parts of a fingerprint."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import schemas
from compass_ray.artifacts import (
    Artifact,
    ArtifactError,
    FingerprintMismatchError,
    Identity,
    Output,
    RunDir,
    Writer,
    content_hash,
    provenance,
)
from compass_ray.config import ConfigError, load_run_config

IDENTITY = Identity("select", {"budget": 0.8, "deep": {"tau": 0.9, "mode": "stochastic"}}, {"pool": "aa"})
ROWS = pa.table({"row_id": ["a", "b", "c"]})

_texts = st.text(max_size=8)
_settings = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(params=["disk", "S3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDir:
    """An empty run directory, on a disk and on an object store."""
    return RunDir(str(tmp_path / "run") if request.param == "disk" else request.getfixturevalue("s3_uri"))


@pytest.fixture
def local(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


def _publish(artifact: Artifact, identity: Identity = IDENTITY) -> None:
    writer = artifact.begin(identity)
    writer.write_table("rows.parquet", ROWS)
    writer.write_json("deep/allocation.json", {"b": 1, "a": "é"})
    writer.write_array("centroids.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.publish({"selected": 3}, device="cpu")


@given(st.lists(_texts, max_size=4), st.lists(_texts, max_size=4))
def test_texts_have_equal_hashes_only_if_they_are_equal(one: list[str], other: list[str]) -> None:
    assert (content_hash(*one) == content_hash(*other)) == (one == other)


@given(st.dictionaries(_texts, _settings, max_size=4), st.dictionaries(_texts, _texts, max_size=4))
def test_a_fingerprint_ignores_the_order_of_keys(config: dict[str, Any], inputs: dict[str, str]) -> None:
    reordered = Identity("select", dict(reversed(config.items())), dict(reversed(inputs.items())))
    assert reordered.fingerprint == Identity("select", config, inputs).fingerprint


@given(st.dictionaries(_texts, _settings, max_size=3), _texts, _settings)
def test_a_further_setting_changes_the_fingerprint(config: dict[str, Any], key: str, value: Any) -> None:
    more = {**config, key + "+" * (1 + max(map(len, config), default=0)): value}
    assert Identity("select", more, {}).fingerprint != Identity("select", config, {}).fingerprint


def test_each_part_of_an_identity_counts() -> None:
    parts = [("select", {"a": "b"}, {}), ("train", {"a": "b"}, {}), ("select", {}, {"a": "b"}), ("select", {"a": "c"}, {})]
    assert len({Identity(*part).fingerprint for part in parts}) == len(parts)


def test_written_data_is_read_back(run: RunDir) -> None:
    artifact = run.selection("compass", "sw")
    _publish(artifact)
    assert artifact.read_table("rows.parquet").equals(ROWS)
    assert artifact.read_json("deep/allocation.json") == {"a": "é", "b": 1}
    for read in (artifact.read_array, artifact.map_array):
        assert np.array_equal(read("centroids.npy"), [[0, 1, 2], [3, 4, 5]])
    with artifact.local_folder() as folder:
        assert json.loads((folder / "deep/allocation.json").read_bytes())["b"] == 1


def test_the_manifest_records_settings_inputs_and_outputs(run: RunDir) -> None:
    artifact = run.selection("compass", "sw")
    _publish(artifact)
    manifest = artifact.verify()
    assert (manifest.stage, manifest.fingerprint, manifest.config, manifest.inputs) == (
        "select",
        IDENTITY.fingerprint,
        IDENTITY.config,
        {"pool": "aa"},
    )
    assert manifest.metrics == {"selected": 3}
    assert manifest.provenance["device"] == "cpu"
    rows = {output.path: output.rows for output in manifest.outputs}
    assert rows == {"centroids.npy": None, "deep/allocation.json": None, "rows.parquet": 3}
    assert all(output.bytes == len(artifact.read_bytes(output.path)) for output in manifest.outputs)


def test_an_artifact_is_complete_only_with_its_manifest(run: RunDir) -> None:
    artifact = run.selection("compass", "sw")
    assert artifact.manifest() is None
    writer = artifact.begin(IDENTITY)
    writer.write_table("rows.parquet", ROWS)
    assert artifact.manifest() is None
    assert artifact.find_complete(IDENTITY) is None
    with pytest.raises(ArtifactError, match=r"selections/compass/sw is missing .*compass-ray adapt"):
        artifact.require()
    writer.publish()
    found = artifact.find_complete(IDENTITY)
    assert found
    assert found == artifact.require()


def test_an_artifact_of_another_identity_stops_with_the_fields_that_differ(run: RunDir) -> None:
    artifact = run.selection("compass", "sw")
    _publish(artifact)
    other = Identity("select", {"budget": 1.2, "deep": {"tau": 0.9, "mode": "uniform"}}, {"pool": "bb"})
    with pytest.raises(FingerprintMismatchError) as raised:
        artifact.find_complete(other)
    message = str(raised.value)
    assert "budget was 0.8, is 1.2" in message
    assert 'deep.mode was "stochastic", is "uniform"' in message
    assert 'pool was "aa", is "bb"' in message
    assert "tau" not in message
    assert "--run" in message
    assert "--force select" in message
    assert artifact.find_complete(other, force=True) is None
    assert artifact.manifest()


def test_a_manifest_of_another_schema_version_is_refused(local: RunDir) -> None:
    artifact = local.pool
    _publish(artifact)
    written = artifact.require().model_copy(update={"schema_version": 0}).sealed()
    artifact.store_bytes("manifest.json", written.model_dump_json().encode())
    with pytest.raises(FingerprintMismatchError, match="schema version 0, expected 2"):
        artifact.find_complete(IDENTITY)


def test_begin_removes_the_earlier_files(run: RunDir) -> None:
    artifact = run.selection("compass", "sw")
    _publish(artifact)
    artifact.begin(IDENTITY)
    assert artifact.manifest() is None
    assert artifact.files() == []


def test_partial_files_of_the_same_identity_are_kept_and_others_removed(run: RunDir) -> None:
    artifact = run.embeddings
    artifact.begin(IDENTITY).write_table("part-00000.parquet", ROWS)
    artifact.begin(IDENTITY, keep_partial=True)
    assert artifact.files() == ["part-00000.parquet"]
    artifact.begin(Identity("select", {}, {}), keep_partial=True)
    assert artifact.files() == []
    artifact.begin(IDENTITY).write_table("part-00000.parquet", ROWS)
    artifact.begin(IDENTITY)
    assert artifact.files() == []


def test_a_complete_artifact_is_not_kept_as_partial(run: RunDir) -> None:
    _publish(run.embeddings)
    run.embeddings.begin(IDENTITY, keep_partial=True)
    assert run.embeddings.files() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stage": "select"}', b"\xff\xfe"])
def test_a_damaged_manifest_is_an_error_with_the_remedy(run: RunDir, content: bytes) -> None:
    artifact = run.selection("compass", "sw")
    _publish(artifact)
    artifact.store_bytes("manifest.json", content)
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged .*remove .*selections/compass/sw and run again"):
        artifact.manifest()


def test_verification_finds_one_flipped_bit(run: RunDir) -> None:
    artifact = run.selection("compass", "sw")
    _publish(artifact)
    data = bytearray(artifact.read_bytes("rows.parquet"))
    data[len(data) // 2] ^= 1
    artifact.store_bytes("rows.parquet", bytes(data))
    with pytest.raises(
        ArtifactError, match=r"rows\.parquet is damaged \(its SHA-256 .*\); remove .* and run again: compass-ray adapt --run"
    ):
        artifact.verify()


def test_verification_finds_a_missing_file(run: RunDir) -> None:
    artifact = run.selection("compass", "sw")
    _publish(artifact)
    artifact.drop("centroids.npy")
    with pytest.raises(ArtifactError, match=r"centroids\.npy is missing; remove .*selections/compass/sw and run again"):
        artifact.verify()


def test_parts_are_read_in_order(run: RunDir) -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    for part in (1, 0, 2):
        rows = values[2 * part : 2 * part + 2]
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 2)
        run.embeddings.store_table(
            f"part-{part:05d}.parquet", pa.table([[f"{part}a", f"{part}b"], column], schema=schemas.embeddings_schema(2))
        )
    assert run.embeddings.read_parts(["row_id"])["row_id"].to_pylist() == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert np.array_equal(run.embeddings.read_embeddings(), values)


def test_only_complete_versions_are_listed(run: RunDir) -> None:
    assert run.adapter_versions("sw") == []
    for version in ("v0002", "v0001", "target"):
        _publish(run.adapter("sw", version))
    run.adapter("sw", "v0003").begin(IDENTITY).write_table("rows.parquet", ROWS)
    assert run.adapter_versions("sw") == ["target", "v0001", "v0002"]


def test_the_live_pointer_is_replaced_and_removed(run: RunDir) -> None:
    assert run.live("sw") is None
    run.set_live("sw", {"version": "v0001"})
    run.set_live("sw", {"version": "v0002"})
    assert run.live("sw") == {"version": "v0002"}
    run.clear_live("sw")
    assert run.live("sw") is None


def test_the_configuration_keeps_local_paths_and_no_credential(tmp_path: Path) -> None:
    run, paths = RunDir(str(tmp_path / "run")), ("/m/hf_checkpoint2024", "/m/d;key=1", "s3://AKIA:hush@models/m")
    for path in paths:
        run.write_config(load_run_config("atlas-test", overrides=[f"train.base_model={path}"]))
        assert run.read_config().train.base_model == path.replace("AKIA:hush", "***")
    assert b"hush" not in (run.read_config_bytes() or b"")


def test_the_configuration_is_stored_in_the_run(run: RunDir) -> None:
    with pytest.raises(ArtifactError, match=r"there is no run in .*compass-ray adapt --preset NAME --run"):
        run.read_config()
    config = load_run_config("atlas-test")
    run.write_config(config)
    assert run.read_config() == config
    run.write_config_bytes(b'{"languages": ["sw"], "nonsense": 1}')
    with pytest.raises(ArtifactError, match=r"run\.json is damaged or of another version \(1 problems\)"):
        run.read_config()


def test_a_run_is_pickled_as_its_uri(run: RunDir) -> None:
    import pickle

    _publish(run.pool)
    assert pickle.loads(pickle.dumps(run)).pool.require() == run.pool.require()


def test_an_unreachable_uri_is_refused_with_examples() -> None:
    with pytest.raises(ConfigError, match=r"--run 'ftp://there/run'.*s3://bucket/run"):
        RunDir("ftp://there/run")


# A full disk. A small tmpfs needs privileges, so the write itself fails here.


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fsync(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


def test_a_full_disk_is_reported_and_leaves_no_file(local: RunDir, full_disk: None) -> None:
    with pytest.raises(ArtifactError, match=r"no space left to write .* bytes\); free space and run again"):
        local.pool.store_table("rows.parquet", ROWS)
    assert [path for path in Path(local.uri).rglob("*") if path.is_file()] == []
    assert local.pool.manifest() is None


def test_a_disk_full_before_the_manifest_leaves_no_complete_artifact(local: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = local.pool.begin(IDENTITY)
    writer.write_table("rows.parquet", ROWS)
    with monkeypatch.context() as patch:

        def fsync(descriptor: int) -> NoReturn:
            raise OSError(errno.ENOSPC, "full")

        patch.setattr(os, "fsync", fsync)
        with pytest.raises(ArtifactError, match="no space left"):
            writer.publish()
    assert local.pool.manifest() is None
    assert local.pool.files() == ["rows.parquet"]
    assert writer.publish() == local.pool.verify()


def test_a_full_disk_leaves_the_live_pointer_as_it_was(local: RunDir, request: pytest.FixtureRequest) -> None:
    local.set_live("sw", {"version": "v0001"})
    request.getfixturevalue("full_disk")
    with pytest.raises(ArtifactError, match="no space left"):
        local.set_live("sw", {"version": "v0002"})
    assert local.live("sw") == {"version": "v0001"}


def test_another_disk_error_is_not_reported_as_full(local: RunDir) -> None:
    Path(local.uri).parent.mkdir(parents=True, exist_ok=True)
    Path(local.uri).write_text("a file where the run should be")
    with pytest.raises(
        ArtifactError, match=r"cannot write .*pool/x \(Not a directory\); a part of this path is a file: remove it"
    ):
        local.pool.store_bytes("x", b"1")


_WRITER = """
import os, sys
from compass_ray.artifacts import Identity, RunDir
run, identity = RunDir(sys.argv[1]), Identity("select", {}, {})
writer = run.pool.begin(identity, keep_partial=True)
if sys.argv[2] == "before the manifest":
    writer.write_bytes("part-00000", b"complete")
real = os.fsync
def stop(descriptor):
    print("writing", flush=True)
    sys.stdin.read()
os.fsync = stop
if sys.argv[2] == "before the manifest":
    writer.publish()
else:
    writer.write_bytes("part-00000", b"half")
"""


@pytest.mark.parametrize("when", ["in a file", "before the manifest"])
def test_a_killed_writer_leaves_no_complete_artifact(local: RunDir, when: str) -> None:
    command = [sys.executable, "-c", _WRITER, local.uri, when]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == "writing"
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
    identity = Identity("select", {}, {})
    assert local.pool.find_complete(identity) is None
    assert local.pool.files() == ([] if when == "in a file" else ["part-00000"])
    writer = local.pool.begin(identity, keep_partial=True)
    writer.write_bytes("part-00001", b"more")
    kept = [] if when == "in a file" else ["part-00000"]
    assert [output.path for output in writer.publish().outputs] == [*kept, "part-00001"]
    assert local.pool.verify()


def test_a_run_that_is_a_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("not a run")
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        RunDir(str(tmp_path / "notes"))


@pytest.mark.parametrize(("uri", "message"), [("", "is empty"), (" ", "is empty"), ("/", "root"), ("s3://", "root")])
def test_a_run_without_a_folder_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunDir(uri)


# Provenance


def test_a_manifest_records_software_and_start_time(run: RunDir) -> None:
    writer = run.pool.begin(IDENTITY)
    begun = run.pool.read_in_progress_marker()
    assert begun
    assert begun.fingerprint == IDENTITY.fingerprint
    provenance = writer.publish(seed=3, device="cpu").provenance
    assert provenance["started"] == begun.started <= provenance["finished"]
    assert (provenance["seed"], provenance["device"]) == (3, "cpu")
    assert provenance["packages"]["pyarrow"] == pa.__version__
    assert provenance["python"] == ".".join(map(str, sys.version_info[:3]))
    assert provenance["platform"]


def test_continuing_an_attempt_keeps_its_start_time(local: RunDir) -> None:
    local.embeddings.begin(IDENTITY).write_bytes("part-00000", b"1")
    local.embeddings.store_bytes("begun.json", json.dumps({"fingerprint": IDENTITY.fingerprint, "started": "then"}).encode())
    local.embeddings.begin(IDENTITY, keep_partial=True)
    made = Writer(local.embeddings, IDENTITY).publish()
    assert made.provenance["started"] == "then"
    assert [output.path for output in made.outputs] == ["part-00000"]


@pytest.mark.parametrize("content", [b"", b'"an older form"', b'{"fingerprint": 1}', b"\xff"])
def test_a_damaged_in_progress_marker_restarts_the_artifact(local: RunDir, content: bytes) -> None:
    local.pool.begin(IDENTITY).write_bytes("part-00000", b"1")
    local.pool.store_bytes("begun.json", content)
    assert local.pool.read_in_progress_marker() is None
    local.pool.begin(IDENTITY, keep_partial=True)
    assert local.pool.files() == []


def test_the_commit_is_that_of_the_checkout_only(tmp_path: Path) -> None:
    assert provenance.git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert provenance.git_commit(tmp_path) == head
    (tmp_path / ".git" / "HEAD").write_text("nonsense")
    assert provenance.git_commit(tmp_path) is None


# Large files


def test_a_folder_is_copied_without_loading_it_into_memory(local: RunDir) -> None:
    """Measured by Python's allocations; the file has four times the allowed size."""
    size = 128 << 20
    writer = local.pool.begin(IDENTITY)

    def fill(folder: Path) -> None:
        with (folder / "shard").open("wb") as stream:
            stream.truncate(size)

    tracemalloc.start()
    writer.write_folder(fill)
    made = writer.publish()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < size / 3
    assert [(output.path, output.bytes) for output in made.outputs] == [("shard", size)]
    assert local.pool.verify() == made


def test_a_table_written_in_a_folder_has_its_rows_in_the_manifest(run: RunDir) -> None:
    writer = run.pool.begin(IDENTITY)
    writer.write_folder(lambda folder: pq.write_table(ROWS, folder / "rows.parquet"))
    assert [output.rows for output in writer.publish().outputs] == [3]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_reported_for_a_folder_as_well(local: RunDir) -> None:
    with pytest.raises(ArtifactError, match=r"no space left to write .*shard"):
        Writer(local.pool, IDENTITY).write_folder(lambda folder: (folder / "shard").write_bytes(b"1") and None)
    assert local.pool.files() == []


def test_a_file_that_changed_after_it_was_written_is_read_again_to_publish_it(local: RunDir) -> None:
    writer = local.pool.begin(IDENTITY)
    writer.write_bytes("rows", b"one")
    Path(local.pool.path, "rows").write_bytes(b"another")
    writer.publish()
    assert local.pool.verify().outputs[0].bytes == len(b"another")


def test_files_of_workers_are_published_without_reading_them(local: RunDir) -> None:
    local.embeddings.begin(IDENTITY)
    written = local.embeddings.store_table("part-00000.parquet", ROWS)
    writer = Writer(local.embeddings, IDENTITY)
    writer.artifact.add_outputs([Output.model_validate_json(written.model_dump_json())])
    Path(local.embeddings.path, "part-00000.parquet").write_bytes(bytes(written.bytes))
    assert writer.publish().outputs == (written,)
    with pytest.raises(ArtifactError, match="damaged"):
        local.embeddings.verify()
