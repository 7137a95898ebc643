"""What is killed or damaged in the middle: a Ray Data actor, a training worker, a node, one language's selection.

The command lives on and ends with all that an undisturbed run has; nothing that had a manifest is made again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cluster.clusters import Cluster, Node, ended, stamps, wait_until

# With clusters of their own the four of them take some five minutes: `make slow`.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MANIFESTS = "**/manifest.json"
EMBEDDER = "ray::MapWorker(MapBatches(ShardEmbedder))"
TRAINER = "ray::RayTrainWorker"


def _copy(whole: Path, folder: Path, *without: str) -> Path:
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("train_runs"))
    for name in without:
        shutil.rmtree(folder / name)
    return folder


def _contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(pattern))}


def _assert_equal(run: Path, whole: Path, *patterns: str) -> None:
    """The same files with the same content: nothing lost, nothing twice, nothing different."""
    for pattern in patterns:
        expected = _contents(whole, pattern)
        assert expected
        found = _contents(run, pattern)
        assert sorted(found) == sorted(expected)
        assert [name for name in expected if found[name] != expected[name]] == []


def _kill_processes(cluster: Cluster, title: str) -> None:
    wait_until(lambda: bool(cluster.processes(title)), title)
    for process in cluster.processes(title):
        process.kill()


def test_without_a_ray_data_actor(cluster: Cluster, settings: tuple[str, ...], undisturbed: Path, tmp_path: Path) -> None:
    run = _copy(undisturbed, tmp_path / "run", "embeddings", "clusters", "selections", "adapters")
    # As many threads as workers have by default on nodes of two CPUs, since threads may change the last bit of a vector.
    one_actor = ("--set", "resources.embed_workers=1", "--set", "resources.threads_per_worker=2")
    command = cluster.command("compass_ray", "adapt", *settings, *one_actor, "--run", str(run), "--until", "select")
    shards = "embeddings/pool/part-*.parquet"
    # The call that wrote the latest shard may still be running, and is then repeated. Earlier calls have returned.
    wait_until(lambda: command.poll() is not None or len([*run.glob(shards)]) > 1, "a second shard")
    _kill_processes(cluster, EMBEDDER)
    before = stamps(str(run), shards)
    assert 1 < len(before) < len(_contents(undisturbed, shards)), "it was killed too late"
    code, told = ended(command)
    assert code == 0, told
    after = stamps(str(run), shards)
    assert [name for name in sorted(before, key=lambda name: before[name][1])[:-1] if after[name] != before[name]] == []
    _assert_equal(run, undisturbed, "embeddings/**/part-*.parquet", "selections/*/*/rows.parquet")


def test_without_a_training_worker(cluster: Cluster, settings: tuple[str, ...], undisturbed: Path, tmp_path: Path) -> None:
    run = _copy(undisturbed, tmp_path / "run", "adapters")
    command = cluster.command("compass_ray", "adapt", *settings, "--run", str(run), "--until", "train")
    wait_until(lambda: command.poll() is not None or any(run.glob("adapters/*/*/manifest.json")), "a first adapter")
    _kill_processes(cluster, TRAINER)
    before = stamps(str(run), MANIFESTS)
    assert len(_contents(run, "adapters/*/*/manifest.json")) < 4, "it was killed too late"
    code, told = ended(command)
    assert code == 0, told
    assert before.items() <= stamps(str(run), MANIFESTS).items()
    _assert_equal(run, undisturbed, "adapters/*/*/adapter_model.safetensors", "selections/*/*/rows.parquet")


def test_without_a_node(cluster: Cluster, settings: tuple[str, ...], undisturbed: Path, tmp_path: Path) -> None:
    run = _copy(undisturbed, tmp_path / "run", "adapters")
    command = cluster.command("compass_ray", "adapt", *settings, "--run", str(run), "--until", "train")
    wait_until(lambda: command.poll() is not None or any(run.glob("adapters/*/*/manifest.json")), "a first adapter")
    node = _node_that_trains(cluster)
    node.kill()
    before = stamps(str(run), MANIFESTS)
    assert len(_contents(run, "adapters/*/*/manifest.json")) < 4, "it was killed too late"
    code, told = ended(command)
    assert code == 0, told
    assert len(cluster.alive()) == 2
    assert before.items() <= stamps(str(run), MANIFESTS).items()
    _assert_equal(run, undisturbed, "adapters/*/*/adapter_model.safetensors", "selections/*/*/rows.parquet")


def _node_that_trains(cluster: Cluster) -> Node:
    wait_until(lambda: bool(cluster.processes(TRAINER)), TRAINER)
    return cluster.node_of(cluster.processes(TRAINER)[0])


def test_damaged_rows_of_a_language_are_reported_at_once_and_the_others_end(
    cluster: Cluster, settings: tuple[str, ...], undisturbed: Path, tmp_path: Path
) -> None:
    run = _copy(undisturbed, tmp_path / "run", "adapters")
    rows = run / "selections" / "compass" / "sw" / "rows.parquet"
    whole = rows.read_bytes()
    rows.write_bytes(whole[: len(whole) // 2])
    words = ("compass_ray", "adapt", *settings, "--run", str(run), "--until", "train")
    code, told = ended(cluster.command(*words))
    assert code == 1
    assert "sw: training: " in told
    assert f"remove {run}/selections/compass/sw and run again" in told
    assert "attempts)" not in told, "damage is permanent, so it is not tried again"
    others = {path.parts[-3] for path in run.glob("adapters/*/*/manifest.json")}
    assert others == {"el", "hi", "ko"}
    rows.write_bytes(whole)
    code, told = ended(cluster.command(*words))
    assert code == 0, told
    _assert_equal(run, undisturbed, "adapters/*/*/adapter_model.safetensors")
