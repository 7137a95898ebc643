"""The command with a suite: the list, runs of single entries on one page, and wrong options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import Resources, RunConfig
from compass_ray.continual.strategies import STRATEGIES
from compass_ray.evaluation.simulation import drift, forgetting
from compass_ray.evaluation.simulation.forgetting.settings import REQUIRED_STRATEGIES
from compass_ray.harness import planned_tasks
from tests.unit.command_line import Command
from tests.unit.evaluation.experiments.made_up import fill, first_correct

SMALL = "--preset atlas-test --languages sw,hi"


@pytest.fixture
def suite(ray_sessions: list[Resources], compass_ray: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command in this process, with results that are written instead of computed. Ward's clusters fail."""

    def run_all(config: RunConfig, run: RunDir, **named: Any) -> dict[str, float]:
        run.write_config(config)
        if config.cluster.method == "ward":
            raise ArtifactError("no clusters")
        for code in config.languages:
            fill(run, code, {method: first_correct(0.5, 8) for method in ("zero_shot", *config.select.methods)})
        return {}

    monkeypatch.setattr(pipeline, "run_all", run_all)
    return lambda line: compass_ray(f"experiment --suite paper {line}")


def test_the_list_has_the_cost_of_every_entry_with_each_preset(suite: Command) -> None:
    code, out, err = suite("--list")
    assert (code, err) == (0, "")
    assert {"real-tiny", "gemma-3-270m", "phi-4-mini"} <= {*out.splitlines()}
    line = next(line for line in out.split("\ngemma-3-270m\n")[1].splitlines() if line.startswith("table-1 "))
    # Three languages with five methods of their own and one adapter of all data, with three seeds.
    assert line.split()[-4:] == ["1.2", "h", "(computed)", "–"]
    assert " 48 " in line


def test_the_list_as_json_has_the_seconds(suite: Command) -> None:
    listed = json.loads(suite("--list --preset gemma-3-270m --only table-1 --json").out)
    [entry] = listed["gemma-3-270m"]
    assert (entry["name"], entry["cost"]["adapters"]) == ("table-1", 48)
    assert entry["cost"]["cpu"]["seconds"] == 3 * 180 + 48 * 81


def test_entries_run_one_after_the_other_share_a_page(suite: Command, tmp_path: Path) -> None:
    run = f"--run {tmp_path / 'runs'} {SMALL}"
    code, out, err = suite(f"{run} --only table-1")
    assert (code, err.splitlines()) == (0, ["variant 1 of 1: seed=0"])
    assert out.strip() == f"report: {tmp_path}/runs/index.html"
    code, _, err = suite(f"{run} --only figure-3")
    assert code == 0
    assert len(err.splitlines()) == 1 + 7  # the unchanged preset, and seven budgets
    record = json.loads((tmp_path / "runs/suite.json").read_text("utf-8"))
    assert record["table-1"]["rows"][1]["ours"]["interval"]["mean"] == 0.5
    assert record["figure-3"]["rows"][1]["ours"]["interval"]["mean"] == 0.5
    assert record["table-2"]["rows"][0]["ours"] is None
    assert "table-6" not in record  # of another model


def test_a_failed_variant_ends_with_1_and_the_page_shows_the_others(suite: Command, tmp_path: Path) -> None:
    code, out, err = suite(f"--run {tmp_path / 'runs'} {SMALL} --only table-2 --json")
    assert code == 1
    assert err.splitlines() == ["failed: ward,seed=0: no clusters"]
    rows = {row["name"]: row["ours"] for row in json.loads(out)["entries"]["table-2"]["rows"]}
    assert rows["Agglomerative (Ward)"] is None
    assert rows["KMeans"]["interval"]["mean"] == 0.5


def test_entries_that_need_a_request_run_only_if_they_are_named(
    suite: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drift simulation of Table 11 always runs; updates are simulated, and other tasks evaluated, on request."""
    made: list[tuple[str | int, ...]] = []
    monkeypatch.setattr(drift, "simulate", lambda config, run, code, *_, **__: made.append(("drift", code)))
    monkeypatch.setattr(drift, "prepare_prompts", lambda config, run, code, plan: None)
    monkeypatch.setattr(
        forgetting,
        "simulate_forgetting",
        lambda config, run, plan, **_: made.append(
            (
                "updates",
                *config.languages,
                str(plan.seeds),
                *plan.strategies,
                len(plan.buffers),
                len(plan.lambdas),
            )
        ),
    )
    run = f"--run {tmp_path / 'runs'} {SMALL}"
    assert suite(f"{run} --only table-11").code == 0
    assert made == [("drift", "sw"), ("drift", "hi")]
    made.clear()
    assert suite(f"{run} --only figure-6").code == 0
    assert made == [("updates", "sw", "hi", "1", *STRATEGIES, 0, 0)]
    made.clear()
    assert suite(f"{run} --only table-12 --only section-d4").code == 0
    assert made == [("updates", "sw", "hi", "1", *REQUIRED_STRATEGIES, *sizes) for sizes in ((6, 0), (0, 6))]


def test_other_tasks_are_evaluated_with_the_methods_of_the_run(
    suite: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[dict[str, Any]] = []
    monkeypatch.setattr(planned_tasks, "plan", lambda config, run, **named: wanted.append({"config": config, **named}) or [])
    monkeypatch.setattr(planned_tasks, "expand_tags", lambda planned: planned)
    assert suite(f"--run {tmp_path / 'runs'} {SMALL} --only figure-7 --set evaluate.harness.data=/data").code == 0
    [named] = wanted
    assert named["tasks"] == ("xnli", "xquad", "mgsm")
    assert named["methods"] == ["base", "target", "random", "langrank", "langsim", "compass"]
    assert suite(f"--run {tmp_path / 'runs'} {SMALL} --only figure-5 --set evaluate.harness.data=/data").code == 0
    assert wanted[1]["config"].evaluate.long_context.tokens == (8192, 32768, 65536, 131072)


def test_tasks_without_rows_are_told_before_anything_runs(suite: Command, tmp_path: Path) -> None:
    code, _, err = suite(f"--run {tmp_path / 'runs'} {SMALL} --only figure-7")
    assert code == 2
    assert "figure-7 needs the rows of xnli, xquad, mgsm; add --set evaluate.harness.data=FOLDER" in err
    assert not (tmp_path / "runs").exists()


def test_a_failure_of_an_entry_is_told_and_the_page_is_written(suite: Command, tmp_path: Path) -> None:
    code, _, err = suite(f"--run {tmp_path / 'runs'} {SMALL} --only figure-7 --set evaluate.harness.data=/nowhere")
    assert code == 1
    assert "failed: seed=0: figure-7: " in err
    assert (tmp_path / "runs/index.html").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SMALL}", "no folder is given for the runs; add --run FOLDER"),
        (f"--run x {SMALL} --only table-3", "has no entry 'table-3'; choose some of table-1"),
        (f"--run x {SMALL} --vary select.budget=1,2", "a suite varies seeds only, for example --vary seed=0,1"),
        (f"--run x {SMALL} --vary seed=a", "a suite varies seeds only"),
        ("--run x", "no settings are given"),
    ],
)
def test_wrong_options_end_with_2(suite: Command, line: str, message: str) -> None:
    code, out, err = suite(line)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--list", "--list lists the entries of a suite; add --suite paper"),
        ("--run x --only table-1", "--only chooses entries of a suite; add --suite paper"),
        ("--suite nowhere --list", "expected one of paper, or a folder with suite.yaml"),
    ],
)
def test_options_of_a_suite_need_one(compass_ray: Command, line: str, message: str) -> None:
    code, _, err = compass_ray(f"experiment {line}")
    assert code == 2
    assert message in err
