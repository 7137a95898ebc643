"""Windows under any order of traffic, re-clusterings, promotions, rollbacks and kills: every prompt has its space's cluster."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir
from compass_ray.clustering.versions import (
    INITIAL_CLUSTERING,
    ClusterSpace,
    load_space_clusterer,
    read_active,
    resolve_space,
    set_active,
)
from compass_ray.config import with_overrides
from compass_ray.monitoring.cluster_assigner import PromptAssigner, make_assigner_loader
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Observation
from compass_ray.stages.cluster import fit_and_store
from tests.unit.clustering.versions.made_run import WORDS, Embedder, config_of, encode, make_run
from tests.unit.clustering.versions.test_moves import write_moved_version

CONFIG = config_of()
PROMPTS = [f"{first} {second} {n}" for n in range(3) for first in WORDS for second in WORDS]
STEPS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 15)),
    st.tuples(st.just("use"), st.sampled_from([INITIAL_CLUSTERING, "c0002"])),
    st.tuples(st.sampled_from(["follow", "kill", "promote", "roll back"]), st.just(0)),
)


WALKS = st.lists(STEPS, min_size=3, max_size=14)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Two clusterings of one pool, and two versions, one with its own centroids in the first clustering."""
    run = make_run(str(tmp_path_factory.mktemp("machine") / "run"), CONFIG)
    finer = with_overrides(CONFIG, ["cluster.n_clusters=[6]"])
    fit_and_store(finer, run, run.reclustering("c0002"), Identity("cluster", {"n": 6}, dict(run.clusters.require().inputs)))
    write_moved_version(run, "v0002", 0.8)
    registry.promote(run, "sw", "v0001")
    return run


@settings(max_examples=15)
@given(steps=WALKS)
def test_every_prompt_of_a_window_is_in_the_cluster_of_its_space(made: RunDir, steps: list[tuple[str, int | str]]) -> None:
    _walk_a_copy(made, steps)


@pytest.mark.slow
@settings(max_examples=60)
@given(steps=WALKS)
def test_on_longer_searches_too(made: RunDir, steps: list[tuple[str, int | str]]) -> None:
    _walk_a_copy(made, steps)


def _walk_a_copy(made: RunDir, steps: list[tuple[str, int | str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(made.path, Path(folder, "run"))
        _walk(RunDir(str(Path(folder, "run"))), steps)


def _walk(run: RunDir, steps: list[tuple[str, int | str]]) -> None:
    monitor, asked = _monitor(run), 0
    for step, how in steps:
        match step:
            case "ask":
                prompts = [(asked + i, PROMPTS[(asked + i) % len(PROMPTS)]) for i in range(int(how))]
                monitor.record([Observation(f"r{n}", "sw", text, "v0001", 0.5, 900.0) for n, text in prompts])
                asked += int(how)
            case "use":
                if read_active(run).name != how:
                    set_active(run, read_active(run), str(how), reason="by hand")
            case "promote":
                registry.promote(run, "sw", "v0002")
            case "roll back" if (run.live("sw") or {})["version"] == "v0002":
                registry.roll_back(run, "sw")
            case "kill":
                before = monitor.log.language_state("sw").snapshot()
                monitor = _monitor(run)
                assert monitor.log.language_state("sw").snapshot() == before
            case "follow":
                monitor.sync_clusters()
        _check_clusters(run, monitor, min(asked, CONFIG.drift.window))
    if not asked:
        return
    monitor.sync_clusters()
    watch = monitor.log.language_state("sw")
    assert (
        watch.space_id
        == resolve_space(run, read_active(run).name, "sw", watch.version or (run.live("sw") or {})["version"]).space_id
    )


def _check_clusters(run: RunDir, monitor: TrafficMonitor, held: int) -> None:
    watch = monitor.log.language_state("sw")
    assert len(watch.window) == held  # texts are retained, so no reassignment loses a prompt
    if not held:
        return
    spaces = {
        place.space_id: place
        for place in (
            ClusterSpace(INITIAL_CLUSTERING),
            ClusterSpace("c0002"),
            resolve_space(run, INITIAL_CLUSTERING, "sw", "v0002"),
        )
    }
    labels = load_space_clusterer(run, spaces[watch.space_id]).assign(encode([entry["prompt"] for entry in watch.window]))
    np.testing.assert_array_equal([entry["cluster"] for entry in watch.window], labels)


def _monitor(run: RunDir) -> TrafficMonitor:
    return TrafficMonitor(
        run, CONFIG, PromptAssigner(Embedder(), ClusterSpace(read_active(run).name), make_assigner_loader(run)), lambda: 1000.0
    )
