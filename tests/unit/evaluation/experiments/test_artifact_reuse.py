"""Equal artifacts are made once, different ones are not reused, and a variant outlives the variant it reused from."""

from __future__ import annotations

import pickle
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import Artifact, ArtifactError, Identity, Manifest, RunDir
from compass_ray.config import ConfigError, RunConfig, read_raw_config
from compass_ray.evaluation.experiments import Experiment, VariantAttempt, read_experiment, run_all_variants
from compass_ray.evaluation.experiments.artifact_reuse import REUSED_FROM, ArtifactDonors, VariantRun, reuse_artifact
from compass_ray.pipeline import Stage
from compass_ray.progress import Progress, silent

_OF = {"pool": lambda c: {}, "select": lambda c: {"budget": c.select.budget}, "train": lambda c: {"tau": c.select.tau}}
"""Settings that each of three fake stages depends on, in addition to the stage before it."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three stages that publish one artifact each. The list records which were made, and for which variant."""
    calls: list[str] = []
    monkeypatch.setattr(pipeline, "STAGES", tuple(_stage(name, calls) for name in _OF))
    return calls


def _stage(name: str, calls: list[str]) -> Stage:
    before = list(_OF)[: list(_OF).index(name)][-1:]

    def make(config: RunConfig, run: RunDir, *, force: bool, progress: Progress) -> list[Manifest]:
        inputs = {other: run.artifact(other).require().fingerprint for other in before}
        identity, artifact = Identity(name, _OF[name](config), inputs), run.artifact(name)
        if done := artifact.find_complete(identity, force=force):
            return [done]
        variant = run.uri.rpartition("/")[2]
        calls.append(f"{variant}: {name}")
        writer = artifact.begin(identity)
        writer.write_bytes("deep/content.txt", f"{name} of {variant}".encode())
        return [writer.publish({"seconds": 3.0})]

    return Stage(name, make, lambda config, run: [run.artifact(name)])


def _experiment(*vary: str) -> Experiment:
    return read_experiment(read_raw_config("atlas-test"), vary)


def _content(attempt: VariantAttempt, name: str) -> str:
    return attempt.run.artifact(name).read_bytes("deep/content.txt").decode()


def test_shared_artifacts_are_made_once(made: list[str], tmp_path: Path) -> None:
    attempts = run_all_variants(_experiment("select.budget=0.4,1.2", "select.tau=0.5,0.9"), RunDir(str(tmp_path)))
    assert [a.failure for a in attempts] == [None] * 4
    assert made == [
        "select.budget=0.4,select.tau=0.5: pool",
        "select.budget=0.4,select.tau=0.5: select",
        "select.budget=0.4,select.tau=0.5: train",
        "select.budget=0.4,select.tau=0.9: train",
        "select.budget=1.2,select.tau=0.5: select",
        "select.budget=1.2,select.tau=0.5: train",
        "select.budget=1.2,select.tau=0.9: train",
    ]
    assert _content(attempts[3], "select") == "select of select.budget=1.2,select.tau=0.5"
    first, last = (a.run.artifact("pool").verify() for a in (attempts[0], attempts[3]))
    assert last.provenance.pop(REUSED_FROM) == "select.budget=0.4,select.tau=0.5"
    assert first.model_copy(update={"digest": last.digest}) == last


def test_variants_share_on_an_object_store_too(made: list[str], s3_uri: str) -> None:
    experiment = _experiment("select.tau=0.5,0.9", "seed=0,1")
    for _ in range(2):
        attempts = run_all_variants(experiment, RunDir(s3_uri))
        assert [each.failure for each in attempts] == [None] * 4
    assert made == [
        "select.tau=0.5,seed=0: pool",
        "select.tau=0.5,seed=0: select",
        *(f"select.tau={t},seed=0: train" for t in (0.5, 0.9)),
    ]
    assert attempts[3].run.artifact("train").verify().provenance[REUSED_FROM] == "select.tau=0.9,seed=0"


def test_a_second_call_makes_nothing_and_returns_the_same(made: list[str], tmp_path: Path) -> None:
    experiment, where = _experiment("select.budget=0.4,1.2"), RunDir(str(tmp_path))
    before, calls = run_all_variants(experiment, where), list(made)
    after = run_all_variants(experiment, where)
    assert made == calls
    assert [a.failure for a in after] == [a.failure for a in before] == [None, None]


def test_a_variant_added_later_reuses_from_existing_variants(made: list[str], tmp_path: Path) -> None:
    where = RunDir(str(tmp_path))
    run_all_variants(_experiment("select.budget=0.4"), where)
    run_all_variants(_experiment("select.budget=1.2,0.4"), where)
    assert made[3:] == ["select.budget=1.2: select", "select.budget=1.2: train"]


def test_a_variant_outlives_the_one_it_reused_from(made: list[str], tmp_path: Path) -> None:
    first, second = run_all_variants(_experiment("select.tau=0.5,0.9"), RunDir(str(tmp_path)))
    shutil.rmtree(first.run.path)
    assert second.run.artifact("pool").verify().fingerprint
    assert _content(second, "select") == "select of select.tau=0.5"


def test_a_forced_stage_is_recomputed_once_for_all_variants(made: list[str], tmp_path: Path) -> None:
    experiment, where = _experiment("select.tau=0.5,0.9"), RunDir(str(tmp_path))
    run_all_variants(experiment, where)
    made.clear()
    attempts = run_all_variants(experiment, where, force=["select"])
    assert made == ["select.tau=0.5: select"]
    assert [a.failure for a in attempts] == [None, None]


def test_a_failed_variant_is_reported_and_the_others_continue(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: RunConfig, run: RunDir, **named: Any) -> list[Manifest]:
        if config.select.budget == 1.2:
            raise ArtifactError("no rows")
        return train.run(config, run, **named)

    *others, train = pipeline.STAGES
    monkeypatch.setattr(pipeline, "STAGES", (*others, Stage("train", fail, train.artifacts)))
    experiment, where, lines = _experiment("select.budget=0.4,1.2,1.6"), RunDir(str(tmp_path)), []
    attempts = run_all_variants(experiment, where, say=lines.append)
    assert [a.failure for a in attempts] == [None, "no rows", None]
    assert lines == [
        "variant 1 of 3: select.budget=0.4",
        "variant 2 of 3: select.budget=1.2",
        "select.budget=1.2 failed: no rows",
        "variant 3 of 3: select.budget=1.6",
    ]
    monkeypatch.setattr(pipeline, "STAGES", (*others, train))
    made.clear()
    assert [a.failure for a in run_all_variants(experiment, where)] == [None, None, None]
    assert made == ["select.budget=1.2: train"]


def test_other_settings_in_the_same_folder_are_refused_variant_by_variant(made: list[str], tmp_path: Path) -> None:
    where = RunDir(str(tmp_path))
    run_all_variants(_experiment("select.tau=0.5"), where)
    other = read_experiment(read_raw_config("atlas-test"), ["select.tau=0.5"], overrides=["select.budget=2"])
    [attempt] = run_all_variants(other, where)
    assert attempt.failure is not None
    assert "select was made with other settings: budget was 0.8, is 2" in attempt.failure
    assert "--force select" in attempt.failure
    assert attempt.failure.endswith("to recompute only this variant, remove its folder")


def test_each_variant_has_its_own_progress_display(made: list[str], tmp_path: Path) -> None:
    opened: list[int] = []

    def watch() -> nullcontext[Progress]:
        opened.append(len(made))
        return nullcontext(silent)

    run_all_variants(_experiment("select.tau=0.5,0.9"), RunDir(str(tmp_path)), watch=watch)
    assert opened == [0, 3]


def test_a_run_is_rejected_as_the_folder_of_an_experiment(made: list[str], tmp_path: Path) -> None:
    experiment, where = _experiment("select.tau=0.5"), RunDir(str(tmp_path))
    where.write_config(experiment.variants[0].config)
    with pytest.raises(ConfigError, match="is a run; an experiment needs a folder of its own"):
        run_all_variants(experiment, where)
    with pytest.raises(ConfigError, match="unknown stage 'trian'"):
        run_all_variants(experiment, RunDir(str(tmp_path / "new")), until="trian")
    assert made == []


# Reuse of one artifact.


def _write(artifact: Artifact, text: str = "rows") -> Manifest:
    writer = artifact.begin(Identity("pool", {"text": text}, {}))
    writer.write_bytes("part/a.txt", text.encode())
    writer.write_bytes("b.txt", b"")
    return writer.publish()


@pytest.fixture(params=["disk", "disk without links", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder or bucket of the runs."""

    def refuse(*args: object) -> None:
        raise OSError("links are not supported")

    if request.param == "disk without links":
        monkeypatch.setattr("os.link", refuse)
    return str(request.getfixturevalue("s3_uri")) if request.param == "object store" else str(tmp_path)


def test_a_reused_artifact_is_complete_and_equal(storage: str) -> None:
    donor, target = (RunDir(f"{storage}/{name}").artifact("guides", "sw") for name in ("a=1", "b"))
    manifest = _write(donor)
    target.store_bytes("left over.txt", b"of an attempt that was killed")
    reuse_artifact(target, donor, manifest)
    assert target.verify().outputs == manifest.outputs
    assert target.files() == ["b.txt", "part/a.txt"]
    assert target.require().provenance == {REUSED_FROM: "a=1", **manifest.provenance}


def test_recomputing_the_donor_later_does_not_change_the_reused_artifact(storage: str) -> None:
    donor, target = (RunDir(f"{storage}/{name}").artifact("pool") for name in "ab")
    reuse_artifact(target, donor, _write(donor))
    _write(donor, "other rows")
    assert target.verify()
    assert target.read_bytes("part/a.txt") == b"rows"


def test_killed_before_the_manifest_it_is_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    donor, target = (RunDir(str(tmp_path / name)).artifact("pool") for name in "ab")
    manifest = _write(donor)

    def kill(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "store_bytes", kill)
        with pytest.raises(KeyboardInterrupt):
            reuse_artifact(target, donor, manifest)
    assert target.files() == ["b.txt", "part/a.txt"]
    assert target.manifest() is None
    assert reuse_artifact(target, donor, manifest).outputs == target.verify().outputs


def test_a_damaged_artifact_is_not_reused(tmp_path: Path) -> None:
    donor, target = (RunDir(str(tmp_path / name)).artifact("pool") for name in "ab")
    manifest = _write(donor)
    donor.drop("part/a.txt")
    with pytest.raises(ArtifactError, match=r"a/pool/part/a\.txt is missing; remove .*run again"):
        reuse_artifact(target, donor, manifest)
    assert target.manifest() is None


def test_another_fingerprint_or_path_is_not_reused(tmp_path: Path) -> None:
    donor = RunDir(str(tmp_path / "a"))
    manifest = _write(donor.artifact("pool"))
    run = VariantRun(str(tmp_path / "b"), ArtifactDonors([donor, RunDir(str(tmp_path / "b"))]))
    same = Identity("pool", {"text": "rows"}, {})
    assert same.fingerprint == manifest.fingerprint
    assert run.artifact("pool").find_complete(Identity("pool", {"text": "else"}, {})) is None
    assert run.artifact("elsewhere").find_complete(same) is None
    assert run.artifact("pool").find_complete(same)


def test_workers_get_the_plain_run_directory(tmp_path: Path) -> None:
    run = VariantRun(str(tmp_path / "b"), ArtifactDonors([]))
    plain, artifact = pickle.loads(pickle.dumps((run, run.pool)))
    assert (type(plain), plain.uri) == (RunDir, run.uri)
    assert (type(artifact), artifact.path, artifact.name) == (Artifact, run.pool.path, "pool")


def test_a_complete_artifact_replaces_an_unfinished_one(tmp_path: Path) -> None:
    donor, own = RunDir(str(tmp_path / "a")), RunDir(str(tmp_path / "b"))
    _write(donor.artifact("pool"))
    identity = Identity("pool", {"text": "rows"}, {})
    own.artifact("pool").begin(identity).write_bytes("state.pt", b"half")
    found = VariantRun(own.uri, ArtifactDonors([donor, own])).artifact("pool").find_complete(identity)
    assert found is not None
    assert own.artifact("pool").files() == ["b.txt", "part/a.txt"]
