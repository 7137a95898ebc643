"""The command: invalid requests, exit codes, and wide tables in parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import pipeline, preflight
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.cli.experiment import split_columns
from compass_ray.cluster_capacity import ClusterCapacity, Node
from compass_ray.config import Resources, RunConfig
from tests.unit.command_line import Command
from tests.unit.evaluation.experiments.made_up import fill, first_correct


@pytest.fixture
def experiment(ray_sessions: list[Resources], compass_ray: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command in this process, with results that are written instead of computed. Budget 1.6 fails."""

    def run_all(config: RunConfig, run: RunDir, **named: Any) -> dict[str, float]:
        run.write_config(config)
        if config.select.budget == 1.6:
            raise ArtifactError("no rows for it")
        fill(run, "sw", {"compass": first_correct(0.5 if config.select.budget == 0.4 else 0.75, 40)})
        return {}

    monkeypatch.setattr(pipeline, "run_all", run_all)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda line: compass_ray(f"experiment {line}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--preset atlas-test", "nothing varies"),
        ("--preset atlas-test --vary selekt.budget=1,2", "unknown key 'selekt'; did you mean 'select'?"),
        ("--preset atlas-test --vary select.budget=11,1", "select.budget: expected a number from 0 to 10"),
        (
            "--preset atlas-test --vary seed=0,1 --against seed=2",
            "--against 'seed=2' matches no variant; choose one of: seed=0",
        ),
        ("--preset atlas-test --vary seed=0 --until trian", "unknown stage 'trian'"),
        ("--preset atlas-test --vary seed=0 --languages swa", "unknown language 'swa': did you mean 'sw'"),
        ("--preset atlas-test --config x.yaml --vary seed=0", "give --preset or --config, not both"),
        ("--config x.yaml --vary seed=0", "x.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_run_ends_with_2_before_any_work(experiment: Command, tmp_path: Path, line: str, message: str) -> None:
    code, out, err = experiment(f"--run {tmp_path / 'new'} {line}")
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "new").exists()


def test_a_run_is_refused_as_the_folder_of_an_experiment(experiment: Command, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    code, _, err = experiment(f"--run {tmp_path} --preset atlas-test --vary seed=0,1")
    assert code == 2
    assert "is a run; an experiment needs a folder of its own: give another --run" in err


def test_one_session_and_a_table_of_all_variants(experiment: Command, ray_sessions: list[Resources], tmp_path: Path) -> None:
    code, out, err = experiment(f"--run {tmp_path} --preset atlas-test --vary select.budget=0.4,1.2 --set resources.cpus=3")
    assert (code, [r.cpus for r in ray_sessions]) == (0, [3])
    assert err.splitlines() == ["variant 1 of 2: select.budget=0.4", "variant 2 of 2: select.budget=1.2"]
    assert "Difference from select.budget=0.4 on all subjects, points" in out
    assert "+25.0 [+" in out
    assert out.rstrip().endswith(f"report: {tmp_path}/index.html")


def test_a_requirement_that_no_machine_meets_is_reported_once_before_ray_starts(
    experiment: Command, ray_sessions: list[Resources], tmp_path: Path
) -> None:
    code, out, err = experiment(
        f"--run {tmp_path / 'new'} --preset atlas-test --vary seed=0,1 --until embed "
        "--set resources.cpus=2 --set resources.cpus_per_worker=4"
    )
    assert (code, out, ray_sessions) == (2, "", [])
    assert err.startswith("error: resources: embed: requests CPU 4 on one machine; available: 1 machine with CPU 2; lower ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_problems_of_all_variants_are_reported_at_once(
    experiment: Command, ray_sessions: list[Resources], tmp_path: Path
) -> None:
    code, out, err = experiment(
        f"--run {tmp_path / 'new'} --preset atlas-test --vary train.base_model=atlas,/no/base --vary embed.encoder=/no/encoder "
        "--vary seed=0,1"
    )
    assert (code, out, ray_sessions) == (2, "", [])
    encoder, base = err.splitlines()
    assert "error: encoder: " in encoder
    assert "(of " not in encoder
    assert "error: base model: " in base
    names = [f"train.base_model=no-base,embed.encoder=no-encoder,seed={seed}" for seed in (0, 1)]
    assert f"(of {', '.join(names)})" in base


def test_variants_that_differ_only_in_the_seed_are_checked_once(
    experiment: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[float | str] = []

    def quick(config: RunConfig, *others: object) -> list[preflight.CheckResult]:
        checked.append(config.select.budget)
        return []

    monkeypatch.setattr(preflight, "run_quick_checks", quick)
    code, _, _ = experiment(f"--run {tmp_path} --preset atlas-test --vary select.budget=0.4,1.2 --vary seed=0,1,2")
    assert (code, checked) == (0, [0.4, 1.2])


def test_on_a_cluster_its_machines_are_probed_after_the_connection(
    experiment: Command, ray_sessions: list[Resources], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[tuple[int, str]] = []

    def probe_cluster(run: RunDir) -> preflight.ClusterEnvironment:
        probed.append((len(ray_sessions), run.uri))
        return preflight.ClusterEnvironment(
            ClusterCapacity((Node({"CPU": 1.0}),), ()), (preflight.StorageProbe("a", "it is full"),), is_cluster=True
        )

    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    monkeypatch.setattr("compass_ray.ray_session.cluster_probe.probe_cluster", probe_cluster)
    line = f"--run {tmp_path} --preset atlas-test --vary seed=0,1 --until embed --set resources.cpus_per_worker=2"
    code, _, err = experiment(line)
    assert (code, probed) == (1, [(1, str(tmp_path))])
    assert "error: resources: embed: requests CPU 2 on one machine" in err
    assert f"error: storage: {tmp_path} cannot be written from a: it is full; " in err
    assert "variant 1 of 2" not in err


def test_the_folders_pins_apply_to_all_variants_and_a_variants_own_have_priority(experiment: Command, tmp_path: Path) -> None:
    pins = preflight.Pins(models={"some/encoder": "a" * 40, "some/base": "b" * 40})
    RunDir(str(tmp_path)).write_pins(pins.model_dump_json().encode())
    own = preflight.Pins(models={"some/encoder": "c" * 40})
    RunDir(str(tmp_path / "seed=1")).write_pins(own.model_dump_json().encode())
    code, _, err = experiment(
        f"--run {tmp_path} --preset atlas-test --vary seed=0,1,2 --until pool --set embed.encoder=some/encoder "
        "--set train.base_model=some/base --set train.revision=mine"
    )
    assert code == 0
    configs = [RunDir(str(tmp_path / f"seed={seed}")).read_config() for seed in (0, 1, 2)]
    assert [c.embed.revision for c in configs] == ["a" * 40, "c" * 40, "a" * 40]
    assert {c.train.revision for c in configs} == {"mine"}
    assert err.count("note: train.revision=mine overrides the run's pin of some/base, which is " + "b" * 40) == 1
    assert err.count("note: ") == 2  # and that the pins of one variant differ from the folder's


def test_variants_made_equal_by_pins_are_rejected(experiment: Command, ray_sessions: list[Resources], tmp_path: Path) -> None:
    pins = preflight.Pins(models={"some/encoder": "a" * 40})
    RunDir(str(tmp_path)).write_pins(pins.model_dump_json().encode())
    code, _, err = experiment(
        f"--run {tmp_path} --preset atlas-test --set embed.encoder=some/encoder --vary embed.revision=null,{'a' * 40}"
    )
    assert (code, ray_sessions) == (2, [])
    assert "are the same configuration; remove one of them" in err


def test_a_failed_variant_ends_with_1_after_the_tables(experiment: Command, tmp_path: Path) -> None:
    code, out, err = experiment(
        f"--run {tmp_path} --preset atlas-test --vary select.budget=1.6,0.4,1.2 --against select.budget=0.4"
    )
    assert code == 1
    assert "select.budget=1.2  +25.0 [+" in out
    assert err.splitlines()[-1] == "failed: select.budget=1.6: no rows for it"
    assert "Traceback" not in err


def test_with_json_nothing_else_is_printed(experiment: Command, tmp_path: Path) -> None:
    code, out, err = experiment(f"--run {tmp_path} --preset atlas-test --vary select.budget=0.4,1.2 --json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    assert printed.pop("run") == str(tmp_path)
    assert printed == json.loads((tmp_path / "experiment.json").read_text("utf-8"))
    assert [v["name"] for v in printed["variants"]] == ["select.budget=0.4", "select.budget=1.2"]


def test_a_file_says_the_same_as_the_command_line(experiment: Command, tmp_path: Path) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text(
        "extends: atlas-test\nlanguages: [sw]\nexperiment:\n  vary: {select.budget: [0.4]}\n"
        "  variants:\n    paper: []\n    even: [select.weights=none]\n  against: even\n"
    )
    code, out, _ = experiment(f"--run {tmp_path / 'new'} --config {file} --vary seed=7 --json")
    printed = json.loads(out)
    assert code == 0
    assert printed["against"] == "even,select.budget=0.4,seed=7"
    assert printed["variants"][1]["settings"] == ["select.weights=none", "select.budget=0.4", "seed=7"]
    assert RunDir(printed["variants"][1]["run"]).read_config().select.weights == "none"


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=12).flatmap(
        lambda widths: st.tuples(st.just(widths), st.integers(max(widths[1:]) + widths[0] + 4, 200))
    )
)
def test_a_wide_table_is_shown_in_parts_that_fit_and_lose_nothing(drawn: tuple[list[int], int]) -> None:
    widths, width = drawn
    rows = [tuple(f"{r}{i:x}"[:chars].ljust(chars, "x") for i, chars in enumerate(widths)) for r in range(2)]
    parts = list(split_columns(rows, width))
    assert all(sum(len(cell) + 2 for cell in row) <= width for part in parts for row in part)
    assert all(row[0] == full[0] for part in parts for row, full in zip(part, rows, strict=True))
    assert [tuple(cell for part in parts for cell in part[r][1:]) for r in range(2)] == [row[1:] for row in rows]
