"""The stages on Ray: complete, repeatable on any number of workers, resumable, on a disk and on S3; then export and update."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from compass_ray import cli, demo_traffic, export, pipeline, registry
from compass_ray.artifacts import FingerprintMismatchError, RunDir
from compass_ray.config import RunConfig, with_overrides
from compass_ray.languages import LANGUAGES

Copy = Callable[..., RunDir]


def _call(*words: str) -> str:
    """Standard output of a command that joins the suite's Ray."""
    done = CliRunner().invoke(cli.app, list(words), catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.stdout


def _selections(run: RunDir, config: RunConfig) -> dict[str, pa.Table]:
    found = [run.selection(method, code) for code in config.languages for method in config.select.methods]
    return {artifact.name: artifact.read_table("rows.parquet") for artifact in found}


def _stamps(run: RunDir) -> dict[str, int]:
    """Modification time of each file of the run, without Ray Train's own storage and the stage times."""
    files = (p for p in Path(run.path).rglob("*") if p.is_file() and not {"train_runs", "attempts"} & set(p.parts))
    return {str(p.relative_to(run.path)): p.stat().st_mtime_ns for p in files if p.name != "run.json"}


def test_every_artifact_is_complete_and_verified(adapted: RunDir, small: RunConfig) -> None:
    assert all(status.complete == status.total > 0 for status in pipeline.collect_status(small, adapted))
    for stage in pipeline.STAGES:
        for artifact in stage.artifacts(small, adapted):
            assert artifact.verify().outputs


def test_a_selection_has_the_target_s_rows_and_the_drawn_rows(adapted: RunDir, small: RunConfig) -> None:
    pool = {row["row_id"]: row["language"] for row in adapted.pool.read_table("rows.parquet", ["row_id", "language"]).to_pylist()}
    for name, rows in _selections(adapted, small).items():
        _, method, code = name.split("/")
        ids = rows["row_id"].to_pylist()
        roles = list(zip(ids, rows["role"].to_pylist(), strict=True))
        assert len(set(ids)) == len(ids)
        assert all((pool[row_id] == code) == (role == "target") for row_id, role in roles)
        added = sum(role == "auxiliary" for _, role in roles)
        assert added == adapted.selection(method, code).require().metrics["selected"]
        assert (added == 0) == (method == "target")


def test_a_second_run_does_nothing_with_any_resources(adapted: RunDir, small: RunConfig) -> None:
    before = _stamps(adapted)
    overrides = [
        "embed_workers=9",
        "embed_batch=3",
        "train_workers=7",
        "cpus_per_worker=0.1",
        "gpus_per_worker=1",
        "max_failures=0",
    ]
    pipeline.run_all(with_overrides(small, [f"resources.{override}" for override in overrides]), adapted)
    adapted.write_config(small)
    assert _stamps(adapted) == before


def test_a_lost_selection_is_reproduced_and_only_the_report_is_rewritten(copy: Copy, adapted: RunDir, small: RunConfig) -> None:
    run = copy("selections/compass/sw")
    before = _stamps(run)
    pipeline.run_all(small, run)
    again = "selections/compass/sw/"
    made = {name for name, stamp in _stamps(run).items() if before.get(name) != stamp}
    assert {name for name in made if not name.startswith("report/")} == {
        again + name for name in ("rows.parquet", "allocation.json", "manifest.json", "begun.json")
    }
    for file in ("rows.parquet", "allocation.json"):
        assert run.selection("compass", "sw").read_bytes(file) == adapted.selection("compass", "sw").read_bytes(file)


def test_embeddings_without_a_manifest_only_are_published_unchanged(copy: Copy, adapted: RunDir, small: RunConfig) -> None:
    run = copy()
    manifest = run.embeddings.require()
    run.embeddings.drop("manifest.json")
    before = _stamps(run)
    pipeline.run_all(small, run, until="embed")
    assert {k: v for k, v in _stamps(run).items() if not k.endswith("pool/manifest.json")} == {
        k: v for k, v in before.items() if not k.endswith("pool/manifest.json")
    }
    assert run.embeddings.verify().outputs == manifest.outputs


@pytest.mark.soak
def test_another_number_of_workers_selects_the_same_rows(adapted: RunDir, small: RunConfig, tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "run"))
    wider = with_overrides(small, ["resources.embed_workers=2", "resources.cpus_per_worker=0.25", "resources.max_failures=0"])
    pipeline.run_all(wider, run, until="select")
    assert _selections(run, small) == _selections(adapted, small)


@pytest.mark.slow
def test_on_s3_the_first_stages_make_the_same_artifacts(adapted: RunDir, small: RunConfig, s3_uri: str) -> None:
    run = RunDir(s3_uri)
    pipeline.run_all(small, run, until="select")
    assert _selections(run, small) == _selections(adapted, small)
    for stage in pipeline.stages_until("select"):
        for there, here in zip(stage.artifacts(small, run), stage.artifacts(small, adapted), strict=True):
            assert there.verify().fingerprint == here.require().fingerprint
    pipeline.run_all(small, run, until="select")


@pytest.mark.soak
def test_separate_and_pooled_training_runs_give_the_same_adapters(copy: Copy, adapted: RunDir, small: RunConfig) -> None:
    run = copy("adapters/sw/v0001", "adapters/hi/v0001")
    pipeline.run_all(with_overrides(small, ["train.layout=per_language", "resources.train_concurrency=2"]), run, until="train")
    for artifact in pipeline.stages_until("train")[-1].artifacts(small, adapted):
        same = run.artifact(*artifact.name.split("/"))
        assert same.require().fingerprint == artifact.require().fingerprint
        assert same.read_bytes("adapter_model.safetensors") == artifact.read_bytes("adapter_model.safetensors")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=2", "adapters/sw/.* was made with other settings: epochs was 1, is 2.*--force train"),
        ("select.tau=0.5", "selections/.*/sw was made with other settings: tau was 0.9, is 0.5.*--force select"),
        ("embed.max_tokens=7", "embeddings/.* was made with other settings: max_tokens was 512, is 7.*--force embed"),
    ],
)
def test_a_run_of_another_configuration_is_not_changed(adapted: RunDir, small: RunConfig, override: str, message: str) -> None:
    before = _stamps(adapted)
    with pytest.raises(FingerprintMismatchError, match=message):
        pipeline.run_all(with_overrides(small, [override]), adapted)
    assert _stamps(adapted) == before
    assert adapted.read_config() == small


def test_the_report_loads_no_other_file(adapted: RunDir, small: RunConfig) -> None:
    page = adapted.report.read_bytes("index.html").decode()
    loaded = re.findall(r"""(?:src|href|xlink:href|action)\s*=\s*["']?(?!["']?(?:data:|#))([^"'\s>]+)""", page)
    assert loaded == []
    assert not re.search(r"@import|url\((?!['\"]?(?:data:|#))", page)
    assert all(LANGUAGES[code].name in page for code in small.languages)
    pictures = [file for file in adapted.report.files() if file.endswith(".svg")]
    assert pictures
    assert all(adapted.report.read_bytes(picture).startswith(b"<?xml") for picture in pictures)


def test_the_command_prints_the_comparison_and_the_path_of_the_report(adapted: RunDir) -> None:
    printed = _call("adapt", "--preset", "atlas-test", "--run", adapted.path)
    assert f"report: {adapted.path}/report/index.html" in printed
    assert all(word in printed for word in ("sw", "hi"))
    status = json.loads(_call("status", adapted.path, "--json"))
    assert all(stage["whole"] == stage["total"] for stage in status["stages"])


@pytest.mark.parametrize("merged", [False, True])
def test_an_exported_adapter_computes_the_same(adapted: RunDir, small: RunConfig, tmp_path: Path, merged: bool) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from compass_ray.models.base_model import load_base

    written = export.export_adapter(adapted, "sw", None, tmp_path / "out", merged=merged)
    assert written.version == "v0001"
    assert written.difference < 1e-4
    base = load_base(small.train)
    ids = torch.tensor([base.tokenizer("Mji mkuu wa Kenya?")["input_ids"]])
    with torch.inference_mode(), adapted.adapter("sw", "v0001").local_folder() as source:
        plain = base.model(input_ids=ids).logits
        found = (
            AutoModelForCausalLM.from_pretrained(tmp_path / "out")
            if merged
            else PeftModel.from_pretrained(base.model, tmp_path / "out")
        )
        logits = found(input_ids=ids).logits
        expected = logits if not merged else PeftModel.from_pretrained(base.model, str(source))(input_ids=ids).logits
    assert torch.allclose(logits, expected, atol=1e-4)
    assert not torch.allclose(logits, plain, atol=1e-4)


def test_an_adapter_with_one_flipped_bit_is_neither_promoted_nor_exported(copy: Copy, tmp_path: Path) -> None:
    run = copy()
    registry.promote(run, "sw", "v0001")
    other = run.adapter("sw", "target")
    data = bytearray(other.read_bytes("adapter_model.safetensors"))
    data[-1] ^= 1
    other.store_bytes("adapter_model.safetensors", bytes(data))
    with pytest.raises(registry.RegistryError, match=r"sw@target cannot be served: .*adapter_model\.safetensors is damaged"):
        registry.promote(run, "sw", "target")
    assert (run.live("sw") or {})["version"] == "v0001"
    done = CliRunner().invoke(cli.app, ["export", run.path, "sw", str(tmp_path / "out"), "--version", "target"])
    assert "adapter_model.safetensors is damaged" in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_update_is_evaluated_once_and_served_only_if_accepted(copy: Copy, small: RunConfig, tmp_path: Path) -> None:
    run = copy()
    registry.promote_first_versions(small, run)
    stream = demo_traffic.draw_demo_traffic(small, run, "sw", usual=1, shifted=60, new_share=0.9)
    prompts = tmp_path / "traffic.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in stream.shifted), "utf-8")
    line = ["update", run.path, "--language", "sw", "--prompts", str(prompts), "--yes", "--json"]

    outcome = json.loads(_call(*line))

    assert (outcome["from_version"], outcome["to_version"]) == ("v0001", "v0002")
    gate = run.update("sw", "v0002").read_json("gate.json")
    rises = {kept: gate[f"{kept}_after"] - gate[f"{kept}_before"] for kept in ("anchors", "retained")}
    forgets = any(rise > small.update.max_forgetting and gate[f"{kept}_change"]["low"] > 0 for kept, rise in rises.items())
    assert outcome["accepted"] == gate["accepted"] == (gate["window_after"] < gate["window_before"] and not forgets)
    assert (run.live("sw") or {})["version"] == ("v0002" if outcome["accepted"] else "v0001")
    assert run.adapter("sw", "v0002").verify().inputs["parent"] == run.adapter("sw", "v0001").require().fingerprint
    _trained_rows_are_new(run)
    assert json.loads(_call(*line)) == outcome
    assert run.adapter_versions("sw") == ["random", "target", "v0001", "v0002"]
    versions: list[dict[str, Any]] = json.loads(_call("adapters", "list", run.path, "--json"))
    assert [v["version"] for v in versions if v["live"] and v["language"] == "sw"] == [(run.live("sw") or {})["version"]]


def _trained_rows_are_new(run: RunDir) -> None:
    """An update trains on rows that its lineage has not used, all of other languages."""
    before = set(run.selection("compass", "sw").read_table("rows.parquet")["row_id"].to_pylist())
    added = run.selection("v0002", "sw").read_table("rows.parquet")
    assert added.num_rows > 0
    assert not before & set(added["row_id"].to_pylist())
    assert "sw" not in added["language"].to_pylist()
