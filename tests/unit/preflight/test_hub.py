"""Access to the hub: each obstacle is reported with its remedy, each repository is queried once."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig, load_run_config
from compass_ray.preflight import CheckResult, ClusterEnvironment, run_quick_checks
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.hub import Obstacle, Repository, hub_uses, query_hub
from compass_ray.preflight.models import check_models, check_remote_code
from tests.unit.preflight.fake_hub import Hub

_BASE = "train.base_model=org/base"


def _config(*settings: str) -> RunConfig:
    return load_run_config("atlas-test", overrides=settings)


def _found(config: RunConfig, run: RunDir, machine: ClusterEnvironment, role: str) -> list[CheckResult]:
    return [result for result in check_models(CheckContext(config, run, machine)) if result.check == role]


def test_repositories_of_the_hub_are_found_in_every_setting_of_a_preset() -> None:
    found = {(use.repository.id, use.role, use.setting) for use in hub_uses(load_run_config("phi-4-mini"))}
    assert ("microsoft/Phi-4-mini-instruct", "base model", "train.revision") in found
    assert ("CohereLabs/aya_collection", "data sets", "pool.sources.1.revision") in found
    assert ("CohereLabs/Global-MMLU", "data sets", "pool.guides.revision") in found
    assert ("cis-lmu/glotlid", "language identifier", "identifier.revision") in found


def test_atlas_and_local_paths_are_not_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    assert hub_uses(_config(f"pool.sources.0.path={tmp_path / 'rows'}", "pool.guides.path=asked.jsonl")) == []


def test_a_repository_is_named_with_its_commit(hub: Hub, run: RunDir, machine: ClusterEnvironment) -> None:
    hub.commits["models/org/base"] = "0123456789abcdef"
    [found] = _found(_config(_BASE), run, machine, "base model")
    assert not found.blocking
    assert "org/base at 01234567" in found.found


@pytest.mark.parametrize("how", ["gated", "hidden"])
def test_a_licence_that_is_not_accepted_blocks_the_run(hub: Hub, run: RunDir, machine: ClusterEnvironment, how: str) -> None:
    hub.commits["models/org/base"] = "0123456789abcdef"
    getattr(hub, how).add("models/org/base")
    [found] = _found(_config(_BASE), run, machine, "base model")
    assert found.blocking
    assert found.by == "surroundings"
    assert "licence" in found.found
    assert "set HF_TOKEN" in found.remedy
    assert f"accept the licence at http://127.0.0.1:{hub.server_port}/org/base" in found.remedy


def test_a_missing_repository_is_an_error_of_the_settings(hub: Hub, run: RunDir, machine: ClusterEnvironment) -> None:
    [found] = _found(_config(_BASE), run, machine, "base model")
    assert found.blocking
    assert found.by == "settings"
    assert "org/base is a hub id: the repository does not exist" in found.found
    assert "check the spelling" in found.remedy


def test_a_missing_revision_is_named(hub: Hub, run: RunDir, machine: ClusterEnvironment) -> None:
    hub.commits["models/org/base"] = "0123456789abcdef"
    [found] = _found(_config(_BASE, "train.revision=v9"), run, machine, "base model")
    assert found.blocking
    assert "org/base@v9 is a hub id: the revision does not exist" in found.found


def test_an_unreachable_hub_is_a_separate_obstacle(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    [response] = query_hub([Repository("org/base", "model")]).values()
    assert response.obstacle is Obstacle.UNREACHABLE
    assert response.detail
    assert not response.is_usable


def test_data_sets_with_the_same_obstacle_are_reported_together(run: RunDir, machine: ClusterEnvironment) -> None:
    config = _config("pool.sources=[{path: org/one}, {path: org/two}]", "pool.tests={path: org/two, revision: abc}")
    [found] = _found(config, run, machine, "data sets")  # the project's tests run offline
    assert "org/one, org/two, org/two@abc are hub ids: HF_HUB_OFFLINE=1" in found.found
    assert found.blocking


def test_a_repository_in_several_roles_is_queried_once(hub: Hub, run: RunDir, machine: ClusterEnvironment) -> None:
    hub.commits["datasets/org/set"] = "f" * 40
    config = _config("pool.guides.path=org/set", "pool.tests.path=org/set")
    [found] = _found(config, run, machine, "data sets")
    assert not found.blocking
    assert len(hub.requests) == 1


def test_a_snapshot_in_the_cache_needs_no_hub(
    hub: Hub, run: RunDir, machine: ClusterEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    folder, commit = Path(constants.HF_HUB_CACHE) / "models--org--base", "a" * 40
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    [found] = _found(_config(_BASE), run, machine, "base model")
    assert not found.blocking
    assert "in this machine's cache" in found.found


def test_only_repositories_of_incomplete_stages_are_queried(hub: Hub, run: RunDir, machine: ClusterEnvironment) -> None:
    config = _config(_BASE, "embed.encoder=org/encoder", "identifier.model=org/identifier", "pool.tests.path=org/tests")
    results = {stage: run_quick_checks(config, run, machine, {stage}) for stage in ("pool", "embed", "train")}
    named = {stage: {f.check for f in found if f.blocking} for stage, found in results.items()}
    assert named == {"pool": {"data sets"}, "embed": {"encoder"}, "train": {"base model"}}


def test_unpinned_code_of_the_hub_blocks_the_run(run: RunDir, machine: ClusterEnvironment) -> None:
    trusted = ("embed.encoder=org/encoder", "embed.trust_remote_code=true")
    [found] = check_remote_code(CheckContext(_config(*trusted), run, machine))
    assert found.blocking
    assert "embed.revision and embed.code_revision are not set to a commit" in found.found
    assert "doctor --pin" in found.remedy
    half = (*trusted, f"embed.revision='{'a' * 40}'")
    [found] = check_remote_code(CheckContext(_config(*half, "embed.code_revision=main"), run, machine))
    assert found.blocking
    assert "but embed.code_revision is not set to a commit" in found.found
    both = (*half, f"embed.code_revision='{'b' * 40}'")
    assert check_remote_code(CheckContext(_config(*both), run, machine)) == []
    assert check_remote_code(CheckContext(_config("embed.trust_remote_code=true"), run, machine)) == []


def test_unpinned_code_that_the_user_wants_is_reported_only(run: RunDir, machine: ClusterEnvironment) -> None:
    wanted = ("embed.encoder=org/encoder", "embed.trust_remote_code=true", "embed.unpinned_code=true")
    [found] = check_remote_code(CheckContext(_config(*wanted), run, machine))
    assert not found.blocking
    assert found.remedy
