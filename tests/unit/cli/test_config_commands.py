"""Commands that show settings: ``config show``, ``config explain``, ``config schema`` and ``presets``."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from compass_ray import cli
from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig, list_presets, load_run_config
from compass_ray.config.json_schema import build_json_schema
from compass_ray.config.reference import list_settings
from tests.unit.command_line import Command

OVERRIDES = {
    "seed": st.integers(0, 10**12),
    "select.budget": st.one_of(st.floats(0, 10), st.sampled_from(["tuned", "predicted"])),
    "select.mode": st.sampled_from(["stochastic", "nearest"]),
    "pool.bias": st.sampled_from(["null", "{p_low: 0.1}", "{}"]),
    "pool.bias.seed": st.sampled_from(["3", "{sw: 3}"]),
    "pool.guides.exclude": st.sampled_from(["{}", "{subject: [no, '12']}"]),
    "pool.sources.0.path": st.sampled_from(["rows.jsonl", "~/a b.csv", "/x/: #y.parquet", "Some/hub_id", "${X:-r.csv}"]),
    "train.learning_rate": st.floats(1e-12, 1e6, exclude_min=True),
    "train.betas": st.sampled_from(["[0.5, 0.25]", "[0, 0]"]),
    "train.base_model": st.sampled_from(["some/model", "no", "null", "1.5", "models/a/b", "é: ü"]),
    "embed.prompt_prefix": st.sampled_from(["query: ", "", "'0'", "yes", " padded "]),
    "embed.task": st.sampled_from(["null", "text", "''"]),
    "evaluate.families": st.sampled_from(["{a: [b], 'no': ['*']}", "{}"]),
    "update.schedule_utc": st.sampled_from(["22:00-06:00", "null"]),
    "resources.worker_resources": st.sampled_from(["{updates: 0.5}", "{}"]),
    "drift.retention_days": st.one_of(st.none(), st.floats(1e-3, 1e3)),
}  # fmt: skip


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """Some settings as ``key=value``."""
    keys = draw(st.lists(st.sampled_from(sorted(OVERRIDES)), unique=True, max_size=4))
    values = {key: draw(OVERRIDES[key]) for key in keys}
    return [f"{key}={'null' if value is None else value}" for key, value in values.items()]


@given(st.sampled_from(list_presets()), overrides(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_show_prints_is_read_as_the_same_configuration(preset: str, given_settings: list[str], changed: bool) -> None:
    try:
        expected = load_run_config(preset, overrides=given_settings)
    except ConfigError:
        return
    words = ["config", "show", "--preset", preset, *(["--changed"] if changed else [])]
    printed = CliRunner().invoke(cli.app, [*words, *(word for each in given_settings for word in ("--set", each))])
    assert printed.exit_code == 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "shown.yaml")
        file.write_text(printed.stdout, "utf-8")
        assert load_run_config(file=file) == expected
    if changed:
        assert not _defaults(yaml.safe_load(printed.stdout))


def _defaults(tree: dict[str, Any]) -> list[str]:
    """Settings of a tree that have their defaults; those of sections with defaults of their own are left out."""
    found = []
    for each in list_settings():
        value: Any = tree
        for part in each.key.split("."):
            value = value.get(part, tree) if isinstance(value, dict) else tree
        if not (value is tree or each.is_section or each.is_required) and value == each.default:
            found.append(each.key)
    return found


def test_show_prints_the_settings_of_a_run_with_changes(compass_ray: Command, tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "run"))
    run.write_config(load_run_config("atlas-test", overrides=["drift.window=77"]))
    done = compass_ray(f"config show --run {run.uri} --set select.budget=1.5 --languages sw --json")
    shown = RunConfig.model_validate(json.loads(done.out))
    assert (shown.drift.window, shown.select.budget, shown.languages) == (77, 1.5, ("sw",))


def test_show_hides_credentials(compass_ray: Command) -> None:
    done = compass_ray("config show --preset atlas-test --set train.base_model=s3://AKIA:hush@models/m")
    assert (done.code, "hush" in done.out, "s3://***@models/m" in done.out) == (0, False, True)
    assert "hush" not in compass_ray("config explain train.base_model --preset atlas --set train.base_model=s3://A:hush@m/m").out
    line = "config explain train.base_model --preset atlas --set train.base_model=s3://A:hush@m/m --json"
    assert "hush" not in compass_ray(line).out
    rows = "s3://A:hush@rows/r"
    done = compass_ray(
        f"config show --preset atlas-test --set pool.sources.0.path={rows} --set pool.sources.0.revision=a@b --json"
    )
    source = json.loads(done.out)["pool"]["sources"][0]
    assert (source["path"], source["revision"]) == ("s3://***@rows/r", "a@b")


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("config show", 2, "no settings are given; add --preset NAME (atlas, atlas-42, "),
        ("config show --run /nowhere", 1, "there is no run in /nowhere"),
        ("config show --run nowhere --preset atlas", 2, "give --run, or --preset or --config, not both"),
        ("config show --preset atlas --set selekt.budget=1", 2, "did you mean 'select'?"),
        ("config explain selct.budget", 2, "unknown key 'selct.budget'; did you mean 'select'?"),
        ("config explain budget", 2, "did you mean 'select.budget' or 'update.budget'?"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(compass_ray: Command, line: str, code: int, message: str) -> None:
    done = compass_ray(line)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_explain_a_setting(compass_ray: Command) -> None:
    lines = compass_ray("config explain select.budget --preset atlas --set select.budget=predicted").out.splitlines()
    assert lines[0] == "select.budget"
    assert {" ".join(line.split()) for line in lines} >= {
        "type number from 0 to 10, or one of tuned, predicted",
        "default 0.8",
        "value predicted",
        "change it --set select.budget=0.8",
    }
    assert "former name" in compass_ray("config explain drift.floor").out


def test_explain_as_json(compass_ray: Command) -> None:
    found = json.loads(compass_ray("config explain drift.trigger --preset atlas --json").out)
    assert found["choices"] == ["fixed_threshold", "permutation_test", "combined"]
    assert found["default"] == found["value"] == "permutation_test"
    section = json.loads(compass_ray("config explain tune --json").out)
    assert [each["key"] for each in section["settings"]][:2] == ["tune.budgets", "tune.holdout"]
    everything = json.loads(compass_ray("config explain --json").out)
    assert [each["key"] for each in everything["settings"]] == list(RunConfig.model_fields)


@pytest.mark.parametrize("key", ["drift.window", "tune.budgets", "train.base_model", "update.schedule_utc", "evaluate.families"])
def test_the_option_that_explain_prints_can_be_used(compass_ray: Command, key: str) -> None:
    [line] = [each for each in compass_ray(f"config explain {key}").out.splitlines() if "--set" in each]
    option, value = shlex.split(line.split("change it")[1])
    default = next(each.default for each in list_settings() if each.key == key)
    assert compass_ray("config show --preset atlas --json", option, value).code == 0
    tree: Any = json.loads(compass_ray("config show --preset atlas --json", option, value).out)
    for part in key.split("."):
        tree = tree[part]
    assert tree == default


def test_the_schema_is_printed_or_written(compass_ray: Command, tmp_path: Path) -> None:
    assert json.loads(compass_ray("config schema").out) == build_json_schema()
    assert compass_ray(f"config schema --output {tmp_path / 'schema.json'}").out == ""
    assert json.loads((tmp_path / "schema.json").read_text("utf-8")) == build_json_schema()


def test_presets_are_listed_with_what_they_need(compass_ray: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMPASS_BASE_MODEL", "COMPASS_ENCODER", "COMPASS_IDENTIFIER", "COMPASS_AYA_DATASET", "COMPASS_GLOBAL_MMLU"):
        monkeypatch.delenv(name, raising=False)
    found = {each["name"]: each for each in json.loads(compass_ray("presets --json").out)}
    assert tuple(found) == list_presets()
    needs = {name: each["needs"] for name, each in found.items()}
    assert needs["atlas"] == needs["atlas-test"] == needs["atlas-42"] == []
    assert needs["aya-local"] == ["folder in COMPASS_SHARED_DATA"]
    assert needs["gemma-3-270m"] == ["download", "accepted licence"]
    assert needs["phi-4-mini"] == ["download", "up to 8 GPUs", "research only"]
    assert needs["phi-4-mini-commercial"] == needs["qwen2.5-7b-commercial"] == ["download", "up to 8 GPUs"]
    assert needs["llama-3.1-8b-commercial"] == ["download", "accepted licence", "up to 8 GPUs"]
    assert found["gemma-3-270m"]["base_model"] == "google/gemma-3-270m-it"
    assert all(len(each["description"].split()) >= 5 and len(each["description"]) <= 200 for each in found.values())
    printed = compass_ray("presets").out
    assert all(name in printed for name in list_presets())


def test_none_of_these_commands_imports_torch_or_ray(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b", "language": "sw"}\n')
    lines = [
        "presets",
        "config show --preset atlas",
        "config explain select",
        "config schema",
        f"init {rows} --output {tmp_path / 'a.yaml'}",
    ]
    script = (
        "import sys\nfrom compass_ray import cli\n"
        f"for line in {lines!r}:\n"
        "    sys.argv = ['compass-ray', *line.split()]\n"
        "    try: cli.main()\n"
        "    except SystemExit as ended: assert not ended.code, line\n"
        "    loaded = {'torch', 'ray', 'transformers'} & set(sys.modules)\n"
        "    assert not loaded, (line, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
