"""A line of versions reads from where it came and writes only beside it."""

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


def test_what_a_line_lacks_is_its_origins(run: RunDir) -> None:
    line = OverlayRun(OverlayRun(run, "lines", "one"), "two")
    assert line.pool.read_bytes("text") == b"the run's"
    assert line.adapter("sw", FIRST_VERSION).read_bytes("text") == b"the run's"


def test_its_own_comes_first_and_the_origin_keeps_its_own(run: RunDir) -> None:
    line = OverlayRun(run, "lines", "one")
    publish(line, "adapters", "sw", FIRST_VERSION, text="the line's")
    assert line.adapter("sw", FIRST_VERSION).read_bytes("text") == b"the line's"
    assert run.adapter("sw", FIRST_VERSION).read_bytes("text") == b"the run's"
    assert OverlayRun(run, "lines", "other").adapter("sw", FIRST_VERSION).read_bytes("text") == b"the run's"


def test_what_nobody_has_is_written_below_the_line(run: RunDir) -> None:
    line = OverlayRun(run, "lines", "one")
    writer = line.adapter("sw", version_name(2)).begin(Identity("any", {}, {}))
    writer.publish()
    assert line.adapter_versions("sw") == [version_name(2)]
    assert run.adapter_versions("sw") == [FIRST_VERSION]


def test_half_an_artefact_of_its_own_is_gone_on_with(run: RunDir) -> None:
    line = OverlayRun(run, "lines", "one")
    line.adapter("sw", version_name(2)).begin(Identity("any", {}, {})).write_bytes("state", b"half")
    assert line.adapter("sw", version_name(2)).read_bytes("state") == b"half"
