"""An overlay run reads missing artifacts from its parent and never writes to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.artifacts import Identity, RunDir
from compass_ray.evaluation.simulation.forgetting.overlay_run import FIRST_VERSION, OverlayRun, version_name


def publish(run: RunDir, *parts: str, text: str) -> None:
    own = run.own_artifact(*parts) if isinstance(run, OverlayRun) else run.artifact(*parts)
    writer = own.begin(Identity("any", {}, {}))
    writer.write_bytes("text", text.encode())
    writer.publish()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(str(tmp_path / "run"))
    publish(made, "pool", text="the run's")
    publish(made, "adapters", "sw", FIRST_VERSION, text="the run's")
    return made


def test_a_missing_artifact_is_read_from_the_parent(run: RunDir) -> None:
    overlay = OverlayRun(OverlayRun(run, "lines", "one"), "two")
    assert overlay.pool.read_bytes("text") == b"the run's"
    assert overlay.adapter("sw", FIRST_VERSION).read_bytes("text") == b"the run's"


def test_its_own_artifact_has_priority_and_the_parent_is_unchanged(run: RunDir) -> None:
    overlay = OverlayRun(run, "lines", "one")
    publish(overlay, "adapters", "sw", FIRST_VERSION, text="the overlay's")
    assert overlay.adapter("sw", FIRST_VERSION).read_bytes("text") == b"the overlay's"
    assert run.adapter("sw", FIRST_VERSION).read_bytes("text") == b"the run's"
    assert OverlayRun(run, "lines", "other").adapter("sw", FIRST_VERSION).read_bytes("text") == b"the run's"


def test_a_new_artifact_is_written_to_the_overlay(run: RunDir) -> None:
    overlay = OverlayRun(run, "lines", "one")
    writer = overlay.adapter("sw", version_name(2)).begin(Identity("any", {}, {}))
    writer.publish()
    assert overlay.adapter_versions("sw") == [version_name(2)]
    assert run.adapter_versions("sw") == [FIRST_VERSION]


def test_an_unfinished_artifact_of_its_own_is_continued(run: RunDir) -> None:
    overlay = OverlayRun(run, "lines", "one")
    overlay.adapter("sw", version_name(2)).begin(Identity("any", {}, {})).write_bytes("state", b"half")
    assert overlay.adapter("sw", version_name(2)).read_bytes("state") == b"half"
