"""Served languages that the identifier does not know are listed, with what happens to their requests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.models.model_resolver import resolve_model
from compass_ray.preflight import CheckResult, ClusterEnvironment
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.identifier import check_identifier


def _results(run: RunDir, machine: ClusterEnvironment, model: str, languages: str) -> list[CheckResult]:
    config = load_run_config("atlas-test", overrides=[f"identifier.model={model}"], languages=languages.split(","))
    return check_identifier(CheckContext(config, run, machine))


def test_the_packages_identifier_knows_all_languages_of_the_atlas(run: RunDir, machine: ClusterEnvironment) -> None:
    [result] = _results(run, machine, "atlas", "sw,hi,ha")
    assert (result.found, result.remedy) == ("the identifier knows all 3", "")


def test_languages_outside_of_the_atlas_are_named(run: RunDir, machine: ClusterEnvironment) -> None:
    [result] = _results(run, machine, "atlas", "sw,th,zu")
    assert "knows 1 of 3, but not th, zu." in result.found
    assert "a request with model=th gets its adapter" in result.found.lower()
    assert "identifier.model" in result.remedy
    assert not result.blocking


def test_a_model_on_the_hub_is_not_downloaded(
    run: RunDir, machine: ClusterEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    [result] = _results(run, machine, "cis-lmu/glotlid", "sw,th")
    assert result.found == "not checked: the identifier cis-lmu/glotlid is not in the cache of the hub yet"
    assert (result.remedy, result.blocking) == ("", False)


def test_a_model_in_the_cache_of_the_hub_is_checked(
    run: RunDir, machine: ClusterEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--organisation--identifier"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    [file] = (each for each in Path(resolve_model("atlas", "language_id")).iterdir() if each.suffix in (".bin", ".ftz"))
    shutil.copyfile(file, repository / "snapshots" / ("0" * 40) / "model.bin")
    [result] = _results(run, machine, "organisation/identifier", "sw,th,zu")
    assert "the identifier organisation/identifier knows 1 of 3, but not th, zu." in result.found


def test_a_file_that_is_no_identifier_blocks(run: RunDir, machine: ClusterEnvironment, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"nothing at all")
    [result] = _results(run, machine, str(tmp_path / "model.bin"), "sw")
    assert result.blocking
    assert "not a fastText model" in result.found


@pytest.mark.real_models
def test_lid_176_lacks_four_of_the_42(run: RunDir, machine: ClusterEnvironment, real_models: Path) -> None:
    [result] = _results(run, machine, str(real_models / "lid.176.ftz"), "am,ha,ig,ny,sn,sw")
    assert "knows 2 of 6, but not ha, ig, ny, sn." in result.found
