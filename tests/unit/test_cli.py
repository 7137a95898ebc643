"""The command: exit codes, errors without a stack trace, JSON output, and an example in every help text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from compass_ray import __version__, cli, pipeline, ray_session, registry
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import Resources, RunConfig, load_run_config
from compass_ray.models.model_resolver import model_identity
from compass_ray.progress import Progress
from tests.unit.command_line import Command, Done

pytestmark = pytest.mark.usefixtures("ray_sessions")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A run with two versions of one language's adapter, the first one live."""
    run, config = RunDir(str(tmp_path / "run")), load_run_config("atlas-test")
    run.write_config(config)
    for version in ("v0001", "v0002"):
        writer = run.adapter("sw", version).begin(Identity("train", {"base_model": model_identity("atlas"), "v": version}, {}))
        writer.write_bytes("adapter_model.safetensors", version.encode())
        writer.publish()
    registry.promote(run, "sw", "v0001")
    return run.uri


def _commands() -> Iterator[str]:
    group: Any = typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        yield from (f"{name} {inner}" for inner in command.commands) if hasattr(command, "commands") else (name,)


VERBS = ("list", "show", "promote", "rollback", "pin", "unpin", "canary", "shadow")


def test_the_list_of_commands() -> None:
    names = {"demo", "adapt", "status", "report", "serve", "update", "recluster", "doctor", "export", "init", "presets"}
    groups = {f"adapters {verb}" for verb in VERBS} | {f"config {verb}" for verb in ("show", "explain", "schema")}
    assert set(_commands()) >= names | groups


@pytest.mark.parametrize("command", list(_commands()))
def test_every_help_has_an_example_of_its_command(compass_ray: Command, command: str) -> None:
    done = compass_ray(f"{command} --help")
    assert done.code == 0
    assert f"Example: compass-ray {command}" in done.out


def test_the_version_is_printed(compass_ray: Command) -> None:
    assert compass_ray("--version") == Done(0, f"{__version__}\n", "")


def test_no_command_shows_the_help(compass_ray: Command) -> None:
    done = compass_ray("")
    assert all(name in done.out + done.err for name in ("adapt", "serve", "adapters"))
    assert "--install-completion" in compass_ray("--help").out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("adapt --run {run} --preset atlas-test --languages swa", "unknown language 'swa': did you mean 'sw'"),
        ("adapt --run {run} --preset atlass", "did you mean 'atlas'"),
        ("adapt --run {run} --set selekt.budget=1", "unknown key 'selekt'; did you mean 'select'?"),
        ("adapt --run {run} --set select.budget=lots", "select.budget: "),
        ("adapt --run {run} --set 'languages=[sw'", "'[sw' is not a YAML value"),
        ("adapt --run {run} --languages ''", "languages: "),
        ("adapt --run {run} --preset atlas --config x.yaml", "give --preset or --config, not both"),
        ("adapt --run {run} --config {run}/none.yaml", "none.yaml: cannot be read"),
        ("adapt --run {run} --preset atlas-test --until trian", "unknown stage 'trian'; the stages are pool, embed"),
        ("adapt --run {run} --preset atlas-test --force trian", "unknown stage 'trian'"),
        ("adapt --run ''", "--run '' is empty, perhaps from an unset variable"),
        ("status ' '", "is empty"),
        ("adapt --run nosuch://x/y", "--run 'nosuch://x/y'"),
        ("adapt --run {run}/new", "no settings are given; add --preset NAME (atlas, atlas-42, "),
        ("doctor --run {run}/new --set seed=1", "or --config FILE. 'compass-ray presets' describes the presets"),
        ("experiment --run {run}/new --vary seed=0,1", "no settings are given"),
        ("simulate --run {run}/new", "no settings are given"),
        ("quantile-test --run {run}/new", "'compass-ray init ROWS' writes a file for your own rows"),
        ("adapt --run {run} --nonsense", "No such option"),
        ("adapt", "Missing option '--run'"),
        ("update {run} --language yo", "'yo' is not a language of this run; it has sw, hi"),
        ("update {run} --language sw --prompts {run}/none.jsonl", "none.jsonl: the file does not exist"),
        ("recluster {run} --set cluster.scope=per_language", "cluster.scope is per_language"),
        ("recluster {run} --set embed.max_tokens=9", "recluster accepts settings of cluster and resources only"),
        ("serve {run} --set serve.port=99999", "serve.port: "),
        ("demo --run {run}/new --set train.base_model={run}/none", "base_model '{run}/none' does not exist on this machine"),
        ("export {run} sw {run}", "is not empty; give a new folder"),
        ("export {run} sw {run}/new --version v0009", "sw has no version 'v0009'. Existing versions: v0001, v0002"),
    ],
)
def test_a_request_that_cannot_be_run_ends_with_2(compass_ray: Command, folder: str, line: str, message: str) -> None:
    done = compass_ray(line.format(run=folder))
    assert (done.code, done.out) == (2, "")
    assert message.format(run=folder) in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("status {run}/none", "there is no run in"),
        ("report {run}/none", "there is no run in"),
        ("serve {run}/none", "compass-ray adapt --preset NAME --run"),
        ("adapters list {run}/none", "there is no run in"),
        ("adapters promote {run} sw v0009", "sw@v0009 cannot be served"),
        ("adapters promote {run} hi v0001", "Other complete versions of hi: none"),
        ("adapters rollback {run} sw", "sw has no earlier live version to roll back to"),
        ("adapters rollback {run} hi", "hi has no earlier live version to roll back to"),
    ],
)
def test_a_failure_ends_with_1(compass_ray: Command, folder: str, line: str, message: str) -> None:
    done = compass_ray(line.format(run=folder))
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_run_of_another_configuration_ends_with_1_and_the_fields(compass_ray: Command, tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "mine"))
    run.pool.begin(Identity("pool", {"sources": "others"}, {})).publish()
    done = compass_ray(f"adapt --run {run.uri} --preset atlas-test --until pool")
    assert (done.code, done.out) == (1, "")
    assert 'pool was made with other settings: languages was unset, is null; sources was "others", is [' in done.err
    assert "--force pool" in done.err


@pytest.mark.parametrize("error", [RuntimeError("[bold] broke"), ValueError("[bold] broke")])
def test_an_unexpected_error_is_printed_and_a_setting_shows_the_trace(
    compass_ray: Command, folder: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "collect_status", fail)
    done = compass_ray(f"status {folder}")
    assert (done.code, done.out) == (1, "")
    assert "error: [bold] broke\nSet COMPASS_RAY_DEBUG=1" in done.err
    monkeypatch.setenv("COMPASS_RAY_DEBUG", "1")
    with pytest.raises(type(error), match="broke"):
        cli.main()


def test_only_json_is_printed(compass_ray: Command, folder: str) -> None:
    done = compass_ray(f"status {folder}", "--json")
    assert (done.code, done.err) == (0, "")
    expected = [{"stage": "pool", "whole": 0, "total": 3}, {"stage": "embed", "whole": 0, "total": 3}]
    assert json.loads(done.out)["stages"][:2] == expected


@pytest.fixture
def three_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline of one stage that reports three parts and makes no artifact."""

    def run_all(*_: object, progress: Progress, **__: object) -> dict[str, float]:
        for done in (1, 2, 3):
            progress("pool", done, 3)
        return {"pool": 1.5}

    monkeypatch.setattr(pipeline, "run_all", run_all)


@pytest.mark.parametrize(
    "setting", ["{}=1", "{}", "pool.sources.0.{}=1", "pool.sources.{}=1", "seed.{}=1", "pool.sources.0.path=/{}"]
)
def test_a_long_value_is_shortened_in_errors(compass_ray: Command, tmp_path: Path, setting: str) -> None:
    done = compass_ray(f"adapt --run {tmp_path / 'mine'} --preset atlas-test --set {setting.format('x' * 5000)}")
    assert done.code in (1, 2)
    assert len(done.err) < 1500


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Configurations that the pipeline was started with; it computes nothing."""
    found: list[RunConfig] = []
    monkeypatch.setattr(pipeline, "run_all", lambda config, *_, **__: found.append(config) or {})
    return found


@pytest.mark.parametrize("damaged", [False, True])
def test_adapt_continues_a_run_with_its_settings(
    compass_ray: Command, computed: list[RunConfig], tmp_path: Path, damaged: bool
) -> None:
    recorded = load_run_config("atlas-test", overrides=["select.budget=0.7"])
    run = RunDir(str(tmp_path / "mine"))
    run.write_config(recorded)
    line = f"compass-ray adapt --run {run.uri}"
    if damaged:
        run.pool.store_bytes("rows.parquet", b"nothing")
        with pytest.raises(ArtifactError) as raised:
            run.pool.read_table("rows.parquet")
        line = str(raised.value).rpartition("run again: ")[2]
        shutil.rmtree(run.pool.path)
    assert compass_ray(line.removeprefix("compass-ray ")).code == 0
    assert computed == [recorded]


def test_options_change_the_settings_of_a_run(compass_ray: Command, computed: list[RunConfig], tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "mine"))
    run.write_config(load_run_config("atlas-test"))
    assert compass_ray(f"adapt --run {run.uri} --languages sw --set select.budget=0.5").code == 0
    assert compass_ray(f"adapt --run {run.uri} --preset atlas-test --languages sw").code == 0
    assert [(c.languages, c.select.budget) for c in computed] == [
        (("sw",), 0.5),
        (("sw",), load_run_config("atlas-test").select.budget),
    ]


def test_settings_without_their_credentials_are_not_used(compass_ray: Command, tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "mine"))
    run.write_config(load_run_config("atlas-test", overrides=["train.base_model=s3://AKIA:hush@models/m"]))
    for command in ("adapt", "doctor"):
        done = compass_ray(f"{command} --run {run.uri}")
        assert (done.code, "run.json has settings without their credentials; give --preset or --config" in done.err) == (2, True)


@pytest.mark.usefixtures("three_parts")
def test_adapt_prints_json_without_progress(compass_ray: Command, tmp_path: Path) -> None:
    RunDir(str(tmp_path / "mine")).write_config(load_run_config("atlas-test"))
    done = compass_ray(f"adapt --run {tmp_path / 'mine'} --preset atlas-test --until pool --json")
    assert done.err == ""
    cost = {"methods": {}, "languages": 0, "is_equal": False, "to_retrain": [], "text": ""}
    expected = {"run": str(tmp_path / "mine"), "seconds": {"pool": 1.5}, "cautions": [], "training_cost": cost}
    assert json.loads(done.out) == expected


def test_output_of_ray_is_not_in_the_json(compass_ray: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(*args: object, **named: object) -> dict[str, float]:
        print("(raylet) a task failed and is tried again")
        return {"pool": 1.0}

    monkeypatch.setattr(pipeline, "run_all", noisy)
    done = compass_ray(f"adapt --run {tmp_path / 'mine'} --preset atlas-test --json")
    assert json.loads(done.out)["seconds"] == {"pool": 1.0}
    assert done.err == "(raylet) a task failed and is tried again\n"


@pytest.mark.usefixtures("three_parts")
def test_a_job_log_gets_its_progress_in_lines(compass_ray: Command, tmp_path: Path) -> None:
    done = compass_ray(f"adapt --run {tmp_path / 'mine'} --preset atlas-test --until pool")
    assert done.err.splitlines() == ["pool 1/3", "pool 2/3", "pool 3/3"]


def test_versions_are_promoted_and_rolled_back(compass_ray: Command, folder: str) -> None:
    assert compass_ray(f"adapters promote {folder} sw v0002").out == "sw now serves v0002\n"
    assert (RunDir(folder).live("sw") or {})["version"] == "v0002"
    back = json.loads(compass_ray(f"adapters rollback {folder} sw --json").out)
    assert back["version"] == "v0001"
    assert (RunDir(folder).live("sw") or {})["version"] == "v0001"


def test_a_damaged_adapter_is_not_promoted(compass_ray: Command, folder: str) -> None:
    RunDir(folder).adapter("sw", "v0002").store_bytes("adapter_model.safetensors", b"v0003")
    done = compass_ray(f"adapters promote {folder} sw v0002")
    assert done.code == 1
    assert "sw@v0002 cannot be served" in done.err
    assert "adapter_model.safetensors is damaged (its SHA-256" in done.err
    assert (RunDir(folder).live("sw") or {})["version"] == "v0001"


def test_the_doctor_finds_no_problem_of_the_small_run(compass_ray: Command, tmp_path: Path) -> None:
    done = compass_ray(f"doctor --preset atlas-test --run {tmp_path / 'mine'} --json")
    assert done.code == 0
    findings = json.loads(done.out)
    assert {"versions", "storage", "languages", "guide sets", "encoder", "base model"} <= {f["check"] for f in findings}
    assert not any(finding["blocking"] for finding in findings)


@pytest.mark.parametrize(
    ("setting", "check", "message"),
    [
        ("embed.encoder=/nowhere/encoder", "encoder", "'/nowhere/encoder' does not exist"),
        ("train.base_model=some/model", "base model", "hub id: HF_HUB_OFFLINE=1"),
        ("pool.guides.split=test", "guide sets", "guide prompts of 'sw' are also test questions"),
        ("pool.guides.path=${UNSET_HERE}/x.parquet", "sources", "UNSET_HERE is not set"),
        ("resources.cpus_per_worker=500", "resources", "requests CPU 500 on one machine"),
    ],
)
def test_the_doctor_names_the_problem(compass_ray: Command, tmp_path: Path, setting: str, check: str, message: str) -> None:
    done = compass_ray(f"doctor --preset atlas-test --run {tmp_path / 'mine'} --json", "--set", setting)
    assert done.code == 1
    [found] = [finding for finding in json.loads(done.out) if finding["blocking"] and finding["check"] == check]
    assert message in found["found"]
    assert found["remedy"]


def test_the_doctor_says_when_the_run_cannot_be_written(compass_ray: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = compass_ray(f"doctor --preset atlas-test --run {tmp_path / 'file' / 'run'} --json")
    assert done.code == 1
    assert [f["check"] for f in json.loads(done.out) if f["blocking"]] == ["storage"]


def test_adapt_reports_all_problems_before_any_work(compass_ray: Command, tmp_path: Path) -> None:
    settings = ("resources.cpus_per_worker=500", "train.base_model=some/model", "pool.languages=[sw]")
    done = compass_ray(f"adapt --preset atlas-test --run {tmp_path / 'mine'}", *(p for s in settings for p in ("--set", s)))
    assert done.code == 1
    assert done.out == ""
    assert "resources: embed, cluster, select, train, evaluate: requests CPU 500 on one machine" in done.err
    assert "base model: some/model is a hub id: HF_HUB_OFFLINE=1; set a local directory" in done.err
    assert "languages: pool.languages does not include hi" in done.err
    assert not (tmp_path / "mine").exists()


def test_adapt_ends_with_2_for_a_wrong_setting(compass_ray: Command, tmp_path: Path) -> None:
    done = compass_ray(f"adapt --preset atlas-test --run {tmp_path / 'mine'} --set resources.cpus_per_worker=500")
    assert done.code == 2
    assert "lower resources.cpus_per_worker" in done.err


@pytest.fixture
def adapted(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The stages that `adapt` would run; they are recorded instead."""
    seen: list[RunConfig] = []
    monkeypatch.setattr(pipeline, "run_all", lambda config, run, **_: seen.append(config) or {})
    return seen


def test_problems_of_other_stages_do_not_stop_a_run(compass_ray: Command, tmp_path: Path, adapted: list[RunConfig]) -> None:
    line = f"adapt --preset atlas-test --run {tmp_path / 'mine'} --until pool"
    assert compass_ray(f"{line} --set train.base_model=some/model").code == 0
    assert len(adapted) == 1


def test_complete_stages_are_not_checked_again(
    compass_ray: Command, tmp_path: Path, adapted: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(str(tmp_path / "mine"))
    for artifact in (run.pool, run.guide("sw"), run.guide("hi")):
        artifact.begin(Identity("pool", {}, {})).publish()
    monkeypatch.delattr("compass_ray.preflight.run_quick_checks")
    assert compass_ray(f"adapt --preset atlas-test --run {run.uri} --until pool").code == 0
    assert len(adapted) == 1


def test_an_old_report_does_not_hide_missing_stages(compass_ray: Command, tmp_path: Path, adapted: list[RunConfig]) -> None:
    run = RunDir(str(tmp_path / "mine"))
    run.report.begin(Identity("report", {}, {})).publish()
    done = compass_ray(f"adapt --preset atlas-test --run {run.uri} --set resources.cpus_per_worker=500")
    assert (done.code, adapted) == (2, [])
    assert "requests CPU 500" in done.err


def test_pins_are_written_only_if_the_hub_answers(compass_ray: Command, tmp_path: Path) -> None:
    line = f"doctor --preset atlas-test --pin --run {tmp_path / 'mine'}"
    done = compass_ray(f"{line} --set train.base_model=some/model")
    assert done.code == 1
    assert "nothing was pinned: some/model: HF_HUB_OFFLINE=1" in done.err
    assert not (tmp_path / "mine").exists()
    assert "this run uses nothing from the hub" in compass_ray(line).out


def test_a_run_uses_its_pins_and_reports_settings_that_override_them(
    compass_ray: Command, tmp_path: Path, adapted: list[RunConfig]
) -> None:
    run, commit = RunDir(str(tmp_path / "mine")), "c" * 40
    run.write_pins(json.dumps({"models": {"some/model": commit}}).encode())
    line = f"adapt --preset atlas-test --run {run.uri} --until pool --set train.base_model=some/model"
    assert compass_ray(line).code == 0
    done = compass_ray(f"{line} --set train.revision=v2")
    assert done.code == 0
    assert f"train.revision=v2 overrides the run's pin of some/model, which is {commit}" in done.err
    assert [config.train.revision for config in adapted] == [commit, "v2"]


def test_the_doctor_reports_why_the_cluster_cannot_be_joined(
    compass_ray: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(resources: Resources) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379\nand more")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray_session, "session", refuse)
    done = compass_ray(f"doctor --preset atlas-test --run {tmp_path / 'mine'} --json --set select.methods=[compass]")
    assert done.code == 1
    [found] = [finding for finding in json.loads(done.out) if finding["blocking"]]
    assert (found["check"], found["found"]) == ("cluster", "Failed to connect to Ray cluster at 10.0.0.1:6379")
    assert "RAY_ADDRESS" in found["remedy"]


def test_the_doctor_prints_the_remedy_below_the_result(compass_ray: Command, tmp_path: Path) -> None:
    done = compass_ray(f"doctor --preset atlas-test --run {tmp_path / 'mine'} --set resources.cpus_per_worker=500")
    assert done.code == 1
    lines = [line.split() for line in done.out.splitlines()]
    [at] = [i for i, words in enumerate(lines) if words[:2] == ["blocks", "resources"]]
    assert any(words[:2] == ["->", "lower"] for words in lines[at : at + 4])
