"""A run directory of an earlier version goes on: no stage is computed again, and an update follows its last version."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray import demo_traffic, pipeline, registry
from compass_ray.artifacts import RunDir
from compass_ray.continual import update as updates
from tests import former_run


@pytest.fixture
def run(tmp_path: Path, ray_cluster: None) -> RunDir:
    return former_run.extract(tmp_path / "run")


def _manifests(run: RunDir) -> dict[str, bytes]:
    return {str(path.relative_to(run.path)): path.read_bytes() for path in Path(run.path).rglob("manifest.json")}


@pytest.mark.slow
def test_nothing_is_computed_again_and_an_update_follows(run: RunDir) -> None:
    before, config = _manifests(run), run.read_config()
    pipeline.run_all(config, run)
    after = _manifests(run)
    assert after.pop("report/manifest.json")
    assert after == before
    stream = demo_traffic.draw_demo_traffic(config, run, "sw", usual=1, shifted=50, new_share=0.9)
    prompts = Path(run.path, "prompts.jsonl")
    prompts.write_text("".join(f'{{"prompt": "{prompt}"}}\n' for prompt in stream.shifted), "utf-8")
    outcome = updates.run_update(config, run, updates.read_window(run, config, "sw", prompts))
    assert (outcome.from_version, outcome.to_version) == ("v0002", "v0003")
    assert [each.kind for each in registry.read_decisions(run)][3] == "gate"
