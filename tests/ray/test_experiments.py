"""An experiment: shared artifacts are made once, the others by each variant, and a kill loses only unfinished artifacts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from compass_ray.artifacts import Manifest, RunDir
from compass_ray.config import read_raw_config
from compass_ray.evaluation.experiments import (
    Experiment,
    VariantAttempt,
    build_tables,
    collect_outcomes,
    read_experiment,
    run_all_variants,
    write_report,
)
from compass_ray.evaluation.experiments.artifact_reuse import REUSED_FROM
from tests.ray.in_process import no_workers

_SETTINGS = ["select.methods=[target, compass]", "languages=[sw]"]


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return read_experiment(read_raw_config("atlas-test"), ["select.budget=0.4,1.2"], overrides=_SETTINGS)


@pytest.fixture(scope="module")
def ended(adapted: RunDir, experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> list[VariantAttempt]:
    """Both budgets, on the pool and clusters of `adapted`. Read them, never change them."""
    folder = tmp_path_factory.mktemp("budgets")
    for name in ("pool", "guides/sw", "embeddings/pool", "embeddings/guides/sw", "clusters"):
        shutil.copytree(Path(adapted.path, name), folder / experiment.variants[0].name / name)
    with no_workers():
        return run_all_variants(experiment, RunDir(str(folder)))


def _manifests(run: RunDir, *stages: str) -> dict[str, Manifest]:
    found = ((path.parent, path) for stage in stages for path in Path(run.path, stage).rglob("manifest.json"))
    return {str(folder.relative_to(run.path)): Manifest.model_validate_json(path.read_bytes()) for folder, path in found}


def _times(run: RunDir) -> dict[str, int]:
    """When each manifest was written."""
    return {str(path.relative_to(run.path)): path.stat().st_mtime_ns for path in Path(run.path).rglob("manifest.json")}


def test_artifacts_that_do_not_depend_on_the_budget_are_made_once(ended: list[VariantAttempt]) -> None:
    assert [each.failure for each in ended] == [None, None]
    shared = ("pool", "guides", "embeddings", "clusters", "selections/target", "adapters/sw/target", "evaluations/zero_shot")
    first, second = (_manifests(each.run, *shared) for each in ended)
    assert first.keys() == second.keys()
    assert {"embeddings/pool", "clusters", "adapters/sw/target", "evaluations/zero_shot/sw"} <= first.keys()
    for name, manifest in second.items():
        assert manifest.provenance.pop(REUSED_FROM) == "select.budget=0.4"
        assert manifest.model_copy(update={"digest": first[name].digest}) == first[name]  # a digest covers the provenance


def test_artifacts_that_depend_on_it_are_made_by_each_variant(ended: list[VariantAttempt]) -> None:
    first, second = (_manifests(each.run, "selections/compass", "adapters/sw/v0001", "evaluations/compass") for each in ended)
    assert len(first) == 3
    assert all(manifest.fingerprint != second[name].fingerprint for name, manifest in first.items())
    rows = [each.run.selection("compass", "sw").require().metrics["selected"] for each in ended]
    assert rows[0] < rows[1]


def test_each_variant_is_a_run_of_its_own(ended: list[VariantAttempt], experiment: Experiment) -> None:
    for each, variant in zip(ended, experiment.variants, strict=True):
        assert each.run.read_config() == variant.config
        assert each.run.report.verify()
        assert all(each.run.artifact(name).verify() for name in _manifests(each.run, "."))


def test_the_table_has_both(ended: list[VariantAttempt], experiment: Experiment, tmp_path: Path) -> None:
    outcomes = collect_outcomes(experiment, ended)
    titles = {each.title: each.rows for each in build_tables(outcomes)}
    assert [row[0] for row in titles["Accuracy on all subjects, percent, mean over languages"][1:]] == [
        "select.budget=0.4",
        "select.budget=1.2",
    ]
    found = outcomes.variants[1].difference["all"]["compass"]
    assert found.items == 24
    assert found.interval.low <= found.interval.mean <= found.interval.high
    assert not outcomes.variants[1].difference["all"]["target"].is_nonzero
    assert [o.cost.whole for o in outcomes.variants] == [o.cost.total for o in outcomes.variants]
    assert [o.cost.taken for o in outcomes.variants] == [0, 9]
    assert all(o.cost.seconds > 0 for o in outcomes.variants)
    write_report(RunDir(str(tmp_path)), outcomes)
    assert json.loads((tmp_path / "experiment.json").read_bytes())["against"] == "select.budget=0.4"
    assert "select.budget=1.2" in (tmp_path / "index.html").read_text("utf-8")


def test_a_second_call_makes_nothing(
    ended: list[VariantAttempt], experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seconds = [_times(each.run) for each in ended], [o.cost.seconds for o in collect_outcomes(experiment, ended).variants]
    where = RunDir(str(Path(ended[0].run.path).parent))
    monkeypatch.setattr("compass_ray.ray_session.start", _refuse)
    again = run_all_variants(experiment, where)
    assert [each.failure for each in again] == [None, None]
    assert [_times(each.run) for each in again] == before
    assert [o.cost.seconds for o in collect_outcomes(experiment, again).variants] == seconds


def _refuse(*args: object) -> None:
    raise AssertionError("Ray was started although nothing was missing")


def test_after_a_kill_only_incomplete_artifacts_are_reused_or_made(
    ended: list[VariantAttempt], experiment: Experiment, tmp_path: Path
) -> None:
    shutil.copytree(Path(ended[0].run.path).parent, tmp_path, ignore=shutil.ignore_patterns("train_runs"), dirs_exist_ok=True)
    first, second = (RunDir(str(tmp_path / variant.name)) for variant in experiment.variants)
    kept = _times(first), _times(second)
    (Path(second.path) / "embeddings/pool/manifest.json").unlink()  # killed while the files were copied
    shutil.rmtree(Path(second.path) / "evaluations/compass")
    with no_workers():
        again = run_all_variants(experiment, RunDir(str(tmp_path)))
    assert [each.failure for each in again] == [None, None]
    assert _times(first) == kept[0]
    changed = {name for name, time in _times(second).items() if time != kept[1].get(name)}
    # The report shows the duration, so it changes too.
    assert changed == {f"{name}/manifest.json" for name in ("embeddings/pool", "evaluations/compass/sw", "report")}
    assert REUSED_FROM in second.embeddings.verify().provenance
    assert REUSED_FROM not in second.evaluation("compass", "sw").verify().provenance


@pytest.mark.soak
def test_from_nothing_on_ray_it_makes_the_same(
    ray_cluster: None, ended: list[VariantAttempt], experiment: Experiment, tmp_path: Path
) -> None:
    made = run_all_variants(experiment, RunDir(str(tmp_path)))
    assert [each.failure for each in made] == [None, None]
    for mine, expected in zip(made, ended, strict=True):
        names = _manifests(expected.run, ".").keys()
        assert _manifests(mine.run, ".").keys() == names
        for name in names - {"report"}:
            assert mine.run.artifact(name).verify().fingerprint == expected.run.artifact(name).require().fingerprint
        for version in ("target", "v0001"):
            adapters = [each.run.adapter("sw", version).read_bytes("adapter_model.safetensors") for each in (mine, expected)]
            assert adapters[0] == adapters[1]
