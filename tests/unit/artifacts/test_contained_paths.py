"""A name that is read from a file of a run, or typed, never leads out of the folder that it is a name in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.artifacts import MANIFEST, ArtifactError, Identity, Manifest, Output, RunDir, jsonl_log
from compass_ray.artifacts.contained_path import is_contained
from compass_ray.artifacts.verification import verify_run
from compass_ray.clustering.versions.active import read_active
from compass_ray.evaluation.experiments.artifact_reuse import reuse_artifact
from compass_ray.registry.live_pointer import read_pointer
from compass_ray.registry.names import RegistryError
from tests.unit.command_line import Command

IDENTITY = Identity("select", {}, {})
LEAVING = ["../secret", "/etc/passwd", "a/../../secret", "..", "", ".", "a//b", "a\\..\\b", "a\0b"]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(str(tmp_path / "run"))
    writer = made.pool.begin(IDENTITY)
    writer.write_bytes("rows", b"1")
    writer.publish()
    (tmp_path / "secret").write_bytes(b"1")
    return made


def _list_output(run: RunDir, path: str) -> None:
    """Let the manifest of the pool list another output, as a forged manifest would."""
    file = Path(run.pool.path, MANIFEST)
    manifest = json.loads(file.read_text())
    manifest["outputs"][0]["path"] = path
    del manifest["digest"]
    file.write_text(json.dumps(manifest))


@pytest.mark.parametrize("path", LEAVING)
def test_an_output_that_leads_out_of_its_artifact_is_refused(run: RunDir, tmp_path: Path, path: str) -> None:
    _list_output(run, path)
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged \(.*leads out of the artifact\); remove"):
        run.pool.verify()
    assert [problem.file for problem in verify_run(run).problems] == [MANIFEST]
    forged = Manifest.model_construct(
        stage="pool", fingerprint="f", outputs=(Output.model_construct(path=path, bytes=1, sha256="0"),), provenance={}
    )
    target = RunDir(str(tmp_path / "other")).pool
    with pytest.raises((ArtifactError, ValueError)):
        reuse_artifact(target, run.pool, forged)
    assert not target.exists(MANIFEST)


@pytest.mark.parametrize("link", ["file", "folder"])
def test_an_output_that_is_a_link_out_of_its_artifact_is_refused(run: RunDir, tmp_path: Path, link: str) -> None:
    name = "rows" if link == "file" else "deep/secret"
    target = Path(run.pool.path, "rows")
    if link == "file":
        target.unlink()
        target.symlink_to(tmp_path / "secret")
    else:
        Path(run.pool.path, "deep").symlink_to(tmp_path, target_is_directory=True)
        _list_output(run, name)
    with pytest.raises(ArtifactError, match=f"{name} is damaged .it is a link that leads out of the artifact.; remove"):
        run.pool.verify()
    assert name in {problem.file for problem in verify_run(run).problems}
    with pytest.raises(ArtifactError, match="leads out"):
        reuse_artifact(RunDir(str(tmp_path / "other")).pool, run.pool, run.pool.require())


def test_a_linked_run_and_a_linked_artifact_are_complete(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path, target_is_directory=True)
    assert RunDir(str(tmp_path / "link")).pool.verify()
    os.rename(run.pool.path, tmp_path / "elsewhere")
    Path(run.pool.path).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert run.pool.verify()


@pytest.mark.parametrize(
    "use",
    [
        lambda run, name: run.artifact(name),
        lambda run, name: run.adapter("sw", name),
        lambda run, name: run.adapter(name, "v0001"),
        lambda run, name: run.reclustering(name),
        lambda run, name: run.live(name),
        lambda run, name: run.set_live(name, {}),
        lambda run, name: run.clear_live(name),
        lambda run, name: run.read_monitor(name),
        lambda run, name: run.write_monitor(name, b""),
        lambda run, name: run.delete_monitor(name),
        lambda run, name: run.extend_monitor(name, lambda before: before),
        lambda run, name: jsonl_log.append(run, name, [{"a": 1}]),
        lambda run, name: run.pool.read_bytes(name),
        lambda run, name: run.pool.read_table(name),
        lambda run, name: run.pool.map_array(name),
        lambda run, name: run.pool.store_bytes(name, b""),
        lambda run, name: run.pool.drop(name),
        lambda run, name: run.pool.exists(name),
    ],
)
def test_no_name_leads_out_of_the_run(run: RunDir, tmp_path: Path, use: Callable[[RunDir, str], object]) -> None:
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for name in ("../secret", "/etc/passwd", "a/../../../secret"):
        with pytest.raises(ArtifactError, match=r"is no path in .*(empty, absolute or goes up)"):
            use(run, name)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("version", ["..", "../v0001", "a/b", "a\\b", ".hidden"])
def test_a_live_pointer_with_such_a_version_is_damaged(run: RunDir, version: str) -> None:
    for pointer in ({"version": version}, {"version": "v0001", "canary": {"version": version, "share": 0.1}}):
        run.set_live("sw", pointer)
        with pytest.raises(RegistryError, match="cannot be read"):
            read_pointer(run, "sw")


@pytest.mark.parametrize("name", ["../../secret", "..", "/etc"])
def test_an_active_clustering_with_such_a_name_is_refused(run: RunDir, name: str) -> None:
    writer = run.clusters.begin(IDENTITY)
    writer.publish()
    run.active_clustering_pointer().write({"clusters": name})
    with pytest.raises(ArtifactError, match="is no path in"):
        read_active(run)


def test_a_command_with_such_a_name_is_an_error_of_the_user(compass_ray: Command, run: RunDir) -> None:
    for line in (f"adapters promote {run.path} sw ../../x", f"export {run.path} sw out --version ../../x"):
        assert compass_ray(line).code in (1, 2)


@given(st.text("ab./\\", max_size=8))
def test_a_contained_path_stays_below_its_folder(path: str) -> None:
    if is_contained(path):
        assert Path(os.path.normpath(f"/folder/{path}")).is_relative_to("/folder")
        assert os.path.normpath(f"/folder/{path}") != "/folder"
