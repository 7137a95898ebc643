"""Former names of settings and values: read everywhere, with a warning, and unchanged in fingerprints."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig, list_presets, load_run_config, parse_config
from compass_ray.config.base import FORMER_NAMES_ARE_SILENT, DeprecatedSettingWarning

FORMER = {
    "serve.max_rows=3": ("serve", "max_num_seqs", 3),
    "serve.prefill_tokens=3": ("serve", "prefill_chunk_tokens", 3),
    "serve.max_waiting=3": ("serve", "max_concurrent_requests", 3),
    "serve.request_seconds=3": ("serve", "request_timeout_s", 3.0),
    "identifier.threshold=0.25": ("identifier", "min_confidence", 0.25),
    "identifier.thresholds={sw: 0.25}": ("identifier", "min_confidence_by_language", {"sw": 0.25}),
    "identifier.short=3": ("identifier", "min_letters", 3),
    "identifier.mixture=true": ("identifier", "blend_adapters", True),
    "cluster.reduce=3": ("cluster", "pca_dims", 3),
    "cluster.coarse=3": ("cluster", "monitor_clusters", 3),
    "select.as_printed=true": ("select", "paper_boundary_score", True),
    "drift.floor=0.25": ("drift", "min_divergence", 0.25),
    "drift.persistence=3": ("drift", "consecutive_checks", 3),
    "drift.worse_loss=0.25": ("drift", "min_loss_increase", 0.25),
    "drift.worse_feedback=0.25": ("drift", "min_bad_feedback_increase", 0.25),
    "drift.worse_canary=0.25": ("drift", "min_canary_accuracy_drop", 0.25),
    "drift.stale_noise=0.25": ("drift", "stale_noise_excess", 0.25),
    "drift.stale_distance=2.5": ("drift", "stale_distance_ratio", 2.5),
    "drift.trigger=paper": ("drift", "trigger", "fixed_threshold"),
    "drift.trigger=calibrated": ("drift", "trigger", "permutation_test"),
    "drift.trigger=multi": ("drift", "trigger", "combined"),
    "update.hours=22:00-06:00": ("update", "schedule_utc", "22:00-06:00"),
    "update.automatic=true": ("update", "auto", True),
    "update.promotion=all": ("update", "promotion", "immediate"),
    "update.promotion=none": ("update", "promotion", "manual"),
}


@pytest.mark.parametrize("override", FORMER)
def test_an_override_by_a_former_name_takes_effect_and_warns(override: str) -> None:
    section, name, value = FORMER[override]
    former = override.partition("=")[0]
    present = value if former == f"{section}.{name}" else f"{section}.{name}"
    with pytest.warns(DeprecatedSettingWarning, match=f"setting '{former}' is deprecated; use '{present}'") as warned:
        config = load_run_config("atlas-test", overrides=["drift.permutations=2000", override])
    assert len(warned) == 1
    assert getattr(getattr(config, section), name) == value


def test_every_renamed_setting_is_tried_here() -> None:
    sections = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    renamed = {
        (section, name)
        for section, model in sections.items()
        for name, field in getattr(model, "model_fields", {}).items()
        if field.serialization_alias
    }
    assert renamed - {(section, name) for section, name, _ in FORMER.values()} == {("update", "centroid_step")}


def test_a_file_may_use_former_names_over_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "extends: atlas-test\nupdate: {eta: 0.5}\ncluster: {reduce: 3}\n"
        "pool:\n  sources: [{path: 'atlas:small', where: {subject: x}, without: {subject: [y]}}]\n"
        "  tests: {path: 'atlas:small', also: [{path: atlas}], guided: remove}\n"
    )
    with pytest.warns(DeprecatedSettingWarning) as warned:
        config = load_run_config(file=file)
    assert (config.update.centroid_step, config.cluster.pca_dims) == (0.5, 3)
    assert (config.pool.sources[0].include, config.pool.sources[0].exclude) == ({"subject": "x"}, {"subject": ("y",)})
    assert (len(config.pool.tests.extra_sources), config.pool.tests.on_guide_overlap) == (1, "remove")
    named = sorted(str(each.message).split("'")[1] for each in warned)
    assert named == [
        "cluster.reduce",
        "pool.sources.0.where",
        "pool.sources.0.without",
        "pool.tests.also",
        "pool.tests.guided",
        "update.eta",
    ]


@pytest.mark.parametrize(
    ("typo", "advice"),
    [
        ("drift.flor", "did you mean 'min_divergence' (formerly 'floor')?"),
        ("serve.max_row", "did you mean 'max_num_seqs' (formerly 'max_rows')?"),
        ("drift.windo", "did you mean 'window'?"),
        ("update.hour", "did you mean 'schedule_utc' (formerly 'hours')?"),
    ],
)
def test_a_typo_of_a_former_name_gets_the_present_one(typo: str, advice: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_run_config("atlas-test", overrides=[f"{typo}=3"])
    assert str(error.value) == f"unknown key {typo!r}; {advice}"


def test_a_former_value_in_a_tree_warns_once_with_its_section() -> None:
    with pytest.warns(DeprecatedSettingWarning, match="value 'multi' of setting 'drift.trigger' is deprecated") as warned:
        parse_config({"languages": ["sw"], "drift": {"trigger": "multi"}})
    assert len(warned) == 1


@pytest.mark.parametrize("key", ["floor", "min_divergence"])
def test_an_override_takes_effect_over_a_former_name_in_a_file_without_a_preset(tmp_path: Path, key: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("languages: [sw]\ndrift: {floor: 0.07}\n")
    with pytest.warns(DeprecatedSettingWarning):
        config = load_run_config(file=file, overrides=[f"drift.{key}=0.2"])
    assert config.drift.min_divergence == 0.2


def test_both_names_of_one_setting_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"serve\.max_rows is the former name of serve\.max_num_seqs, and both are set"):
        parse_config({"languages": ["sw"], "serve": {"max_rows": 1, "max_num_seqs": 2}})


@pytest.mark.parametrize("preset", list_presets())
def test_presets_use_present_names_alone(preset: str) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        load_run_config(preset)
    assert warned == []


def test_a_recorded_configuration_reads_without_a_warning() -> None:
    recorded = {"languages": ["sw"], "serve": {"max_rows": 3}, "drift": {"trigger": "multi"}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = RunConfig.model_validate(recorded, context={FORMER_NAMES_ARE_SILENT: True})
    assert (config.serve.max_num_seqs, config.drift.trigger) == (3, "combined")


def test_fingerprints_use_the_first_name_of_each_setting() -> None:
    config = load_run_config("atlas-test")
    assert config.cluster.fingerprint_settings()["reduce"] == 16
    assert "pca_dims" not in config.cluster.fingerprint_settings()
    assert config.drift.fingerprint_settings()["trigger"] == "calibrated"
    assert config.pool.tests.fingerprint_settings()["guided"] == "refuse"


def test_a_recorded_configuration_keeps_the_first_names_and_reads_back(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "run"))
    config = load_run_config("atlas-test", overrides=["update.promotion=manual", "serve.max_num_seqs=3"])
    run.write_config(config)
    recorded = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert (recorded["update"]["promotion"], recorded["drift"]["trigger"], recorded["serve"]["max_rows"]) == (
        "none",
        "calibrated",
        3,
    )
    assert "max_num_seqs" not in recorded["serve"]
    assert run.read_config() == config
