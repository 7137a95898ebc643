"""A run whose URI has credentials: no command, error, manifest, record or page shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compass_ray.artifacts import Identity, RunDir
from compass_ray.artifacts.retries import to_user_error
from compass_ray.cli.app import app
from compass_ray.config import ConfigError, parse_config
from tests.unit.command_line import Command

SECRET = "Zq9x7KpSecretOfTheRun"
IDENTITY = Identity("pool", {"path": f"s3://AKIA:{SECRET}@bucket/rows.parquet"}, {})
COMMANDS = [
    "status {uri}",
    "status {uri} --verify",
    "status {uri} --json",
    "chat {uri}",
    "chat --url {uri}",
    "report {uri}",
    "report {uri} --json",
    "report {uri} --rows sw",
    "report {uri} --row x",
    "report {uri} --cluster 1",
    "adapt --preset atlas-test --run {uri} --until pool --set languages=[xx]",
    "adapt --preset atlas-test --run {uri} --set nonsense={uri}",
    "adapt --preset {uri} --run x",
    "adapt --config {uri} --run x",
    "doctor --preset atlas-test --run {uri} --set embed.encoder={uri}",
    "doctor --preset atlas-test --run {uri} --set train.base_model={uri}",
    "doctor --preset atlas-test --run {uri} --set pool.guides.path={uri}",
    "doctor --preset atlas-test --run {uri} --pin",
    "experiment --preset atlas-test --run {uri} --vary select.budget=x",
    "simulate --preset atlas-test --run {uri} --languages xx",
    "recluster {uri}",
    "update {uri} --language sw",
    "corrections {uri} --language sw",
    "serve {uri}",
    "export {uri} sw {out}",
    "export {uri} sw {uri}",
    "adapters list {uri}",
    "adapters list {uri} --json",
    "adapters show {uri} sw v0001",
    "adapters promote {uri} sw v0001",
    "adapters promote {uri} sw {uri}",
    "adapters rollback {uri} sw",
    "adapters pin {uri} sw",
    "adapters unpin {uri} sw",
    "adapters canary {uri} sw v0001 --share 0.1",
    "adapters canary {uri} sw --stop",
    "adapters shadow {uri} sw v0001",
    "demo --run {uri} --set nonsense=1",
    "presets",
    "init {uri} --output {out}",
    "init {out} --column {uri} --output {out}",
    "init {out} --preset {uri}",
    "config show --run {uri}",
    "config show --run {uri} --json --changed",
    "config show --preset atlas-test --set train.base_model={uri} --set pool.sources.0.path={uri}",
    "config explain train.base_model --run {uri}",
    "config explain pool.sources --preset atlas-test --set pool.sources.0.path={uri} --json",
    "config explain {uri}",
    "eval {uri} --tasks test_set",
    "eval {out} --tasks test_set --include {uri} --data xnli={uri}",
]


@pytest.fixture(params=["empty", "with settings", "refused"])
def uri(request: pytest.FixtureRequest) -> str:
    """URIs of a run that does not exist, of one with settings, and of a kind that is not supported."""
    if request.param == "refused":
        return f"ftp://user:{SECRET}@host/run?X-Amz-Signature={SECRET}"
    made = re.sub("^s3://", f"s3://AKIA:{SECRET}@", str(request.getfixturevalue("s3_uri")))
    if request.param == "with settings":
        RunDir(made).write_config(parse_config({"languages": ["sw"], "train": {"base_model": "organisation/model"}}))
    return made


@pytest.mark.usefixtures("ray_sessions")
def test_no_command_shows_it(compass_ray: Command, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compass_ray.continual import deployment

    monkeypatch.setattr(deployment, "start", lambda *_, **__: pytest.fail("served"))
    shown = {}
    for line in COMMANDS:
        done = compass_ray(line.format(uri=uri, out=tmp_path / "out"))
        shown[line] = done.out + done.err
        assert done.out or done.err, line
    assert [line for line, text in shown.items() if SECRET in text] == []


def test_every_command_is_in_the_list() -> None:
    listed = {" ".join(line.split()[:2]) if line.startswith("adapters") else line.split()[0] for line in COMMANDS}
    help_ = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    commands = set(re.findall(r"^│ ([a-z]+) ", help_, flags=re.MULTILINE)) - {"adapters"}
    assert commands - {line.split()[0] for line in listed} == set()


def test_no_manifest_or_record_has_it(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "run"))
    made = run.pool.begin(IDENTITY).publish({"rows": 1}, source=f"https://user:{SECRET}@host/x")
    run.write_config(
        parse_config({"languages": ["sw"], "pool": {"sources": [{"path": f"s3://AKIA:{SECRET}@bucket/rows.parquet"}]}})
    )
    written = "".join(path.read_text() for path in Path(run.path).rglob("*.json"))
    assert SECRET not in written
    assert json.loads(Path(run.path, "run.json").read_text())["pool"]["sources"][0]["path"].endswith("***@bucket/rows.parquet")
    assert made.fingerprint == IDENTITY.fingerprint
    assert run.pool.find_complete(IDENTITY) == made


def test_a_store_s_error_does_not_repeat_it() -> None:
    for reason in (
        f"AWS Error ACCESS_DENIED during HeadObject: https://host/key?X-Amz-Signature={SECRET}&X-Amz-Date=1",
        f"Generic S3 error: error sending request for url (https://AKIA:{SECRET}@host/key)",
    ):
        assert SECRET not in str(to_user_error(OSError(reason), "bucket/run"))


def test_a_uri_that_cannot_be_opened_is_named_without_it() -> None:
    for uri in (f"ftp://user:{SECRET}@host/run", f"s3://AKIA:{SECRET}@bucket/run?nonsense=1"):
        with pytest.raises(ConfigError) as raised:
            RunDir(uri)
        assert SECRET not in str(raised.value)
        assert "***@" in str(raised.value)
