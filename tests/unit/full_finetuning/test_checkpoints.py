"""A full fine-tuning cut off anywhere goes on from its last whole epoch, and what it left damaged is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from compass_ray.artifacts import Artifact, ArtifactError, Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.full_finetuning import previous_workers
from compass_ray.full_finetuning.checkpoints import Checkpoints
from compass_ray.training.train_history import EpochRecord
from tests.unit.full_finetuning.tiny import ROWS, settings, sharded, tuning

pytestmark = pytest.mark.usefixtures("alone")
IDENTITY = Identity("full", {}, {})


class KilledError(Exception):
    """Raised where a kill is played."""


def begun(artifact: Artifact) -> Checkpoints:
    return Checkpoints(artifact, artifact.begin(IDENTITY, keep_partial=True), len(ROWS))


def trained(config: RunConfig, artifact: Artifact, *, until: int | None = None) -> tuple[EpochRecord, ...]:
    """Train, going on from what is there, up to a kill after epoch ``until``."""
    kept = begun(artifact)
    before = kept.history(1)
    with sharded(config) as model:
        if before:
            kept.load(model, before)
        train = tuning(model, config)

        def on_epoch(history: Sequence[EpochRecord]) -> None:
            kept.save(model, train.group, history)
            if len(history) == until:
                raise KilledError

        history = train.run(history=before, on_epoch=on_epoch).history
    kept.finalize(history)
    kept.writer.publish()
    return history


def losses(history: Sequence[EpochRecord]) -> list[tuple[float, float | None]]:
    return [(epoch.train_loss, epoch.validation_loss) for epoch in history]


@pytest.mark.parametrize(("deepspeed", "where"), [pytest.param("zero3", "disk", marks=pytest.mark.slow), ("zero2", "s3")])
def test_cut_off_after_an_epoch_it_ends_with_the_bits_of_an_uninterrupted_one(
    base_folder: Path, tmp_path: Path, request: pytest.FixtureRequest, deepspeed: str, where: str
) -> None:
    config = settings(base_folder, deepspeed=deepspeed)
    uri = request.getfixturevalue("s3_uri") if where == "s3" else str(tmp_path / "run")
    place = RunDir(uri).full_model("sw", "compass_fft")
    straight = RunDir(str(tmp_path / "straight")).full_model("sw", "compass_fft")
    expected = trained(config, straight)
    with pytest.raises(KilledError):
        trained(config, place, until=1)
    assert {file.split("/")[0] for file in place.files()} == {"epoch-1", "best-1", "history.json"}
    assert previous_workers(place) == 1
    found = trained(config, place)
    assert losses(found) == losses(expected)
    assert place.read_bytes("model.safetensors") == straight.read_bytes("model.safetensors")
    assert place.files() == straight.files()
    assert not any("/" in file for file in place.files())
    assert place.verify().outputs == place.outputs()


def test_the_best_epoch_is_kept_and_an_end_that_was_cut_off_is_repeated(base_folder: Path, tmp_path: Path) -> None:
    config = settings(base_folder, deepspeed="zero2", epochs=4, patience=1)
    steep = config.model_copy(update={"full": config.full.model_copy(update={"learning_rate": 0.3})})
    artifact = RunDir(str(tmp_path)).full_model("sw", "compass_fft")
    kept = begun(artifact)
    with sharded(steep) as model:
        train = tuning(model, steep)
        history = train.run(on_epoch=lambda so_far: kept.save(model, train.group, so_far)).history
    best = min(history, key=lambda epoch: epoch.validation_loss or 0.0).epoch
    assert best < len(history)
    model_before = artifact.read_bytes(f"best-{best}/model.safetensors")

    folder = Path(artifact.path)
    (folder / f"best-{best}" / "config.json").rename(folder / "config.json")  # killed while it was put in place
    kept.finalize(history)
    kept.finalize(history)
    assert artifact.read_bytes("model.safetensors") == model_before
    assert {"config.json", "history.json", "tokenizer.json"} <= set(artifact.files())
    assert not any(path.is_dir() for path in folder.iterdir())


def test_another_number_of_workers_starts_anew(base_folder: Path, tmp_path: Path) -> None:
    config = settings(base_folder, deepspeed="zero2")
    artifact = RunDir(str(tmp_path)).full_model("sw", "compass_fft")
    with pytest.raises(KilledError):
        trained(config, artifact, until=1)
    assert len(begun(artifact).history(1)) == 1
    assert begun(artifact).history(2) == ()


@pytest.mark.parametrize("how", ["torn", "missing", "history"])
def test_what_is_damaged_is_told_with_the_remedy(base_folder: Path, tmp_path: Path, how: str) -> None:
    config = settings(base_folder)
    artifact = RunDir(str(tmp_path)).full_model("sw", "compass_fft")
    with pytest.raises(KilledError):
        trained(config, artifact, until=1)
    [part] = Path(artifact.path).glob("epoch-1/*optim_states.pt")
    if how == "torn":
        part.write_bytes(part.read_bytes()[:1000])
    elif how == "missing":
        part.unlink()
    else:
        Path(artifact.path, "history.json").write_text('{"workers": 1}')
    with pytest.raises(ArtifactError, match=r"models/sw/compass_fft/(epoch-1|history\.json) is damaged.*; remove .*compass_fft"):
        trained(config, artifact)
