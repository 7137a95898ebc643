"""A run directory of an earlier version opens: settings, artifacts, versions, decisions, and the adapter that is served."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from compass_ray import pipeline, registry
from compass_ray.artifacts import SHARED, RunDir
from compass_ray.engine.requests import GenerationRequest
from compass_ray.report.drift_summary import summarize_drift
from compass_ray.serving.adapter_server import open_engine
from compass_ray.stages import cluster, embed, evaluate, pool, select
from compass_ray.stages.train import train_jobs
from tests import former_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return former_run.extract(tmp_path_factory.mktemp("former"))


def test_the_recorded_settings_read_under_their_present_names_without_a_warning(run: RunDir) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = run.read_config()
    assert (config.drift.trigger, config.drift.consecutive_checks) == ("permutation_test", 2)
    assert (config.update.promotion, config.serve.max_num_seqs, config.cluster.pca_dims) == ("immediate", 32, 16)


def test_every_stage_but_the_report_is_complete(run: RunDir) -> None:
    status = {stage.name: (stage.complete, stage.total) for stage in pipeline.collect_status(run.read_config(), run)}
    assert status.pop("report") == (0, 1)
    assert all(complete == total for complete, total in status.values()), status


def test_no_fingerprint_has_changed(run: RunDir) -> None:
    config = run.read_config()
    identities = [
        (run.pool, pool._pool_identity(config)),
        (run.guide("sw"), pool._guide_identity(config, "sw")),
        (run.embeddings, embed._identity(config, run.pool)),
        (run.guide_embeddings("sw"), embed._guide_identity(config, run.guide("sw"))),
        (run.clusters, cluster._identity(config, run, SHARED)),
        *((run.selection(method, "sw"), select._identity(config, run, method, "sw")) for method in config.select.methods),
        *((train_jobs.adapter_artifact(run, job), train_jobs.identity(config, run, job)) for job in train_jobs.list_jobs(config)),
        (run.evaluation("compass", "sw"), evaluate._identity(config, run, evaluate.Evaluation("compass", "sw", "v0001"))),
    ]
    assert [artifact.name for artifact, identity in identities if artifact.require().fingerprint != identity.fingerprint] == []


def test_every_version_can_be_served(run: RunDir) -> None:
    versions = registry.list_versions(run, ["sw"])
    assert {each.name.version: each.problem for each in versions} == dict.fromkeys(("random", "target", "v0001", "v0002"), "")
    assert [each.name.version for each in versions if each.live] == ["v0002"]
    for each in versions:
        registry.verify_servable(run, each.name)


def test_the_report_describes_its_decisions(run: RunDir) -> None:
    assert [each.kind for each in registry.read_decisions(run)] == ["promotion", "gate", "promotion"]
    text = " ".join(summarize_drift(run))
    assert "v0002" in text
    assert "so no update was made" not in text


def test_the_live_adapter_answers(run: RunDir) -> None:
    engine = open_engine(run.read_config())
    engine.load_adapter("sw", Path(run.adapter("sw", "v0002").path))
    request = GenerationRequest(messages=(("user", "Mji mkuu wa Kenya ni upi?"),), adapter="sw", max_tokens=4)
    engine.add_request(request)
    outputs = []
    while engine.has_unfinished_requests:
        outputs += [each.final_output for each in engine.step() if each.final_output]
    assert len(outputs) == 1
