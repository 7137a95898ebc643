"""The run directory: probed, left unchanged, and machines that do not share it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NoReturn

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.cluster_capacity import ClusterCapacity, Node, NodeType
from compass_ray.config import load_run_config
from compass_ray.preflight import ClusterEnvironment, StorageProbe, driver_marker_file, probe_storage
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.permissions import check_permissions
from compass_ray.preflight.storage import check_storage, check_versions_alike

_NODE = Node({"CPU": 4})
_FIXED = ClusterCapacity((_NODE,))


def _context(run: RunDir, *probes: StorageProbe, capacity: ClusterCapacity = _FIXED, cluster: bool = True) -> CheckContext:
    return CheckContext(load_run_config("atlas-test"), run, ClusterEnvironment(capacity, probes, cluster))


def test_a_probe_leaves_no_new_folder(tmp_path: Path) -> None:
    assert probe_storage(RunDir(str(tmp_path / "runs" / "mine"))).error == ""
    assert not (tmp_path / "runs").exists()


def test_a_probe_leaves_existing_files(run: RunDir) -> None:
    Path(run.path).mkdir()
    (Path(run.path) / "run.json").write_text("{}")
    assert probe_storage(run).error == ""
    assert [file.name for file in Path(run.path).iterdir()] == ["run.json"]


def test_a_probe_leaves_an_object_store_empty(s3_uri: str) -> None:
    from pyarrow import fs as pafs

    run = RunDir(s3_uri)
    with driver_marker_file(run) as marker:
        assert probe_storage(run, marker) == StorageProbe(probe_storage(run).machine, "", True, probe_storage(run).versions)
    assert not [f for f in run.filesystem.get_file_info(pafs.FileSelector(run.path, allow_not_found=True)) if f.is_file]


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    run = RunDir(str(tmp_path / "file" / "run"))
    [found] = check_storage(_context(run, probe_storage(run)))
    assert found.blocking
    assert "cannot be written from" in found.found


def test_a_full_disk_is_reported_with_its_own_remedy(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr("compass_ray.preflight.storage_probe.driver_marker_file", full)
    [found] = check_storage(_context(run, probe_storage(run)))
    assert found.found.endswith(": No space left on device")
    assert found.remedy == "free space and run again, complete artifacts are kept"


def test_a_machine_with_a_local_disk_does_not_see_the_drivers_file(run: RunDir, tmp_path: Path) -> None:
    elsewhere = RunDir(str(tmp_path / "of another machine" / "run"))
    with driver_marker_file(run) as marker:
        here = probe_storage(run, marker)
        there = probe_storage(elsewhere, marker.replace(run.path, elsewhere.path))
    assert (here.sees_driver, there.sees_driver) == (True, False)
    [found] = check_storage(_context(run, here, StorageProbe("worker-1", sees_driver=False)))
    assert found.blocking
    assert "worker-1 cannot see files that the driver writes" in found.found
    assert "s3://" in found.remedy


def test_machines_that_start_later_may_not_see_a_local_path(run: RunDir, s3_uri: str) -> None:
    grows = ClusterCapacity((_NODE,), (NodeType("gpu", {"CPU": 8}, 4),))
    [local] = check_storage(_context(run, StorageProbe("head"), capacity=grows))
    assert not local.blocking
    assert "machines that start later" in local.found
    [stored] = check_storage(_context(RunDir(s3_uri), StorageProbe("head"), capacity=grows))
    assert not stored.remedy


@pytest.mark.parametrize("cluster", [True, False])
def test_machines_that_share_the_directory_are_counted(run: RunDir, cluster: bool) -> None:
    [found] = check_storage(_context(run, StorageProbe("driver"), StorageProbe("worker-1"), cluster=cluster))
    assert not found.remedy
    assert "from 2 machines" in found.found


def test_different_versions_are_reported(run: RunDir) -> None:
    driver, worker = StorageProbe("driver", versions={"torch": "2.13.0"}), StorageProbe("worker-1", versions={"torch": "2.12.0"})
    [found] = check_versions_alike(_context(run, driver, worker))
    assert found.found == "worker-1 has torch 2.12.0, the driver has 2.13.0"
    assert check_versions_alike(_context(run, driver, driver)) == []


def test_prompts_and_keys_that_others_can_read_are_reported(run: RunDir, tmp_path: Path, machine: ClusterEnvironment) -> None:
    keys, monitor = tmp_path / "keys", Path(run.path, "monitor")
    keys.touch(mode=0o600)
    monitor.mkdir(parents=True, mode=0o700)
    config = load_run_config("atlas-test", overrides=[f"serve.api_keys={keys}"])
    context = CheckContext(config, run, machine)
    assert check_permissions(context) == []
    keys.chmod(0o640)
    monitor.chmod(0o755)
    found = check_permissions(context)
    assert [each.remedy for each in found] == [f"run 'chmod 600 {keys}'", f"run 'chmod 700 {monitor}'"]
    assert not any(each.blocking for each in found)
