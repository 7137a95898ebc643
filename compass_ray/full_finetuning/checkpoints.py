"""Checkpoints of a full fine-tuning in the artifact of its model.

``epoch-N/`` holds the shards of the state after epoch N, and ``best-N/`` the full model of the best epoch. ``history.json``
names the valid ones. It is written after them, and older folders are removed after that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pyarrow import fs as pafs

from compass_ray.artifacts import Artifact, ArtifactError, Writer
from compass_ray.artifacts.write_errors import explain_delete_errors, explain_write_errors, temporary_folder
from compass_ray.models.errors import describe_loading_error
from compass_ray.records.training import HistoryRecord, TrainingEpochRecord
from compass_ray.training.deepspeed_model import ShardedModel
from compass_ray.training.distributed import WorkerGroup
from compass_ray.training.train_history import EpochRecord, best_record, sum_reply_tokens

_PART = re.compile(r"zero_pp_rank_(\d+)_")
_FOLDER = re.compile(r"(epoch|best)-\d+")


@dataclass(frozen=True)
class Checkpoints:
    """State of one training in its artifact."""

    artifact: Artifact
    writer: Writer
    rows: int

    def history(self, workers: int) -> tuple[EpochRecord, ...]:
        """Finished epochs to resume from; empty without a checkpoint or with another number of workers.

        Raises:
            ArtifactError: the record is damaged.
        """
        found = _read_history(self.artifact)
        return _epochs(found) if found and found.workers == workers else ()

    def load(self, model: ShardedModel, history: Sequence[EpochRecord]) -> None:
        """Load this worker's shard of the state after the last epoch.

        Raises:
            ArtifactError: the shard is damaged or missing.
        """
        name = _epoch_folder(history)
        try:
            with self.artifact.local_folder(*self._parts(name, model.rank)) as folder:
                model.load_state(folder / name)
        except Exception as error:  # a truncated file fails differently in torch, pickle and DeepSpeed
            raise ArtifactError(
                f"{self.artifact.path}/{name} is damaged or missing for worker {model.rank} ({type(error).__name__}: "
                f"{describe_loading_error(error)}); remove {self.artifact.path} and run again"
            ) from error

    def save(self, model: ShardedModel, workers: WorkerGroup, history: Sequence[EpochRecord]) -> None:
        """Save the state after the last epoch, and the model if it is the best so far; every worker calls this."""
        with temporary_folder() as folder:
            model.save_state(folder / "state")
            self._upload(folder / "state", _epoch_folder(history))
        if best_record(history).epoch == history[-1].epoch:
            with temporary_folder() as folder:
                model.save_model(folder)
                if model.rank == 0:
                    self._upload(folder, _best_folder(history))
        model.barrier()
        workers.run_on_rank_zero(lambda: self._write_history(history, model.world_size))

    def finalize(self, history: Sequence[EpochRecord]) -> None:
        """Keep only the model of the best epoch; can be repeated after an interruption."""
        best = f"{self.artifact.path}/{_best_folder(history)}"
        for file in self._files_in(best):
            with explain_write_errors(f"{self.artifact.path}/{file}"):
                self.artifact.filesystem.move(f"{best}/{file}", f"{self.artifact.path}/{file}")
        self._delete_all_but(())

    def _write_history(self, history: Sequence[EpochRecord], workers: int) -> None:
        record = HistoryRecord(
            epochs=tuple(TrainingEpochRecord(**asdict(epoch)) for epoch in history),
            best_epoch=best_record(history).epoch,
            rows=self.rows,
            tokens=sum(epoch.tokens for epoch in history),
            reply_tokens=sum_reply_tokens(history),
            steps=sum(epoch.steps for epoch in history),
            seconds=round(sum(epoch.seconds for epoch in history), 2),
            workers=workers,
        )
        record.write(self.writer)
        self._delete_all_but((_epoch_folder(history), _best_folder(history)))

    def _delete_all_but(self, kept: Sequence[str]) -> None:
        selector = pafs.FileSelector(self.artifact.path)
        for found in self.artifact.filesystem.get_file_info(selector):
            if _FOLDER.fullmatch(found.base_name) and found.base_name not in kept:
                with explain_delete_errors(found.path):
                    self.artifact.filesystem.delete_dir(found.path)

    def _upload(self, folder: Path, name: str) -> None:
        for path in sorted(folder.iterdir()):
            self.artifact.store_file(f"{name}/{path.name}", path)

    def _parts(self, name: str, rank: int) -> list[str]:
        """Files of this worker, and files that rank 0 wrote for all."""
        found = [(file, _PART.search(file)) for file in self._files_in(f"{self.artifact.path}/{name}")]
        return [f"{name}/{file}" for file, part in found if part is None or int(part[1]) == rank]

    def _files_in(self, path: str) -> list[str]:
        found = self.artifact.filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        return sorted(each.base_name for each in found if each.type == pafs.FileType.File)


def previous_workers(artifact: Artifact) -> int | None:
    """Number of workers of an unfinished training in ``artifact``; None without one."""
    found = _read_history(artifact)
    return found.workers if found else None


def _read_history(artifact: Artifact) -> HistoryRecord | None:
    if not artifact.exists(HistoryRecord.FILE):
        return None
    try:
        found = HistoryRecord.read(artifact)
        if missing := {"epochs", "workers"} - found.model_fields_set:
            raise KeyError(*sorted(missing))
        _epochs(found)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{artifact.path}/{HistoryRecord.FILE} is damaged ({type(error).__name__}: {error}); "
            f"remove {artifact.path} and run again"
        ) from None
    return found


def _epochs(found: HistoryRecord) -> tuple[EpochRecord, ...]:
    return tuple(EpochRecord(**each.to_json()) for each in found.epochs)


def _epoch_folder(history: Sequence[EpochRecord]) -> str:
    return f"epoch-{history[-1].epoch}"


def _best_folder(history: Sequence[EpochRecord]) -> str:
    return f"best-{best_record(history).epoch}"
