"""Stage: evaluate tasks of lm-evaluation-harness under every method and language, on actors that keep the base model.

Key property: each task of a method in a language is an artifact of its own, so a killed evaluation continues. The base model is
loaded once by each actor; adapters are attached to it in turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from compass_ray import ray_session
from compass_ray.adapters.method_model import find_model_artifact, open_method_model
from compass_ray.artifacts import Artifact, Identity, LanguagesFailedError, Manifest, RunDir
from compass_ray.config import RunConfig
from compass_ray.harness.layouts import TaskLayout, harness_version, task_layouts
from compass_ray.harness.oneruler import ONERULER, check_oneruler, oneruler_rows
from compass_ray.harness.planned_tasks import HarnessTask, identify
from compass_ray.harness.task_files import build_tasks, write_tasks
from compass_ray.models.memory_watch import find_kill, forget_kill
from compass_ray.progress import Progress, silent
from compass_ray.records.harness import HarnessRecord

if TYPE_CHECKING:
    from compass_ray.artifacts.writer import Writer
    from compass_ray.models.base_model import BaseModel

_ROWS = "test.parquet"
"""Rows of the test set of the run and of OneRuler."""
_MEMORY_ADVICE = "lower evaluate.batch_tokens (it was {tokens}), or evaluate.harness.batch_size if the task generates replies"

Pending = Mapping[HarnessTask, Identity]
"""Tasks that have no complete result, in their order."""


def find_pending(config: RunConfig, run: RunDir, wanted: Sequence[HarnessTask], *, force: bool = False) -> Pending:
    """The tasks without a complete result, all of them with ``force``. No model is loaded.

    Raises:
        ConfigError: the harness is not installed, the rows of a task cannot be found, or OneRuler has no prompts of a length.
        FingerprintMismatchError: a result was made with other settings.
    """
    identities = {each: identify(config, run, each) for each in wanted}
    pending = {each: made for each, made in identities.items() if not _artifact(run, each).find_complete(made, force=force)}
    sources = dict.fromkeys((each.folder, each.language) for each in pending if each.task == ONERULER)
    if sources:
        _check_oneruler(config, [(Path(folder or ""), language) for folder, language in sources])
    return pending


def _check_oneruler(config: RunConfig, sources: Sequence[tuple[Path, str]]) -> None:
    """Check lengths of prompts against the context of the base model, and against the words and books of each language."""
    from compass_ray.harness.lm_eval_backend import check_prompt_length
    from compass_ray.models.base_model import load_base_without_weights

    base, settings = load_base_without_weights(config.train), config.evaluate.long_context
    check_prompt_length(base, max(settings.tokens), task_layouts()[ONERULER].settings["generation_kwargs"]["max_gen_toks"])
    for folder, language in sources:
        check_oneruler(folder, language, settings, lambda text: _count_tokens(base, text))


def _count_tokens(base: BaseModel, text: str) -> int:
    return len(base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def run_tasks(
    config: RunConfig, run: RunDir, wanted: Sequence[HarnessTask], *, force: bool = False, progress: Progress = silent
) -> list[Manifest]:
    """Evaluate what is missing, several tasks at the same time.

    Raises:
        ConfigError: as `find_pending`.
        LanguagesFailedError: some tasks failed; the artifacts of the others are complete.
    """
    if pending := find_pending(config, run, wanted, force=force):
        _evaluate_all(config, run, pending, progress, len(wanted))
    return [_artifact(run, each).require() for each in wanted]


def _artifact(run: RunDir, task: HarnessTask) -> Artifact:
    return run.harness(task.method, task.language, task.task)


def _evaluate_all(config: RunConfig, run: RunDir, pending: Pending, progress: Progress, total: int) -> None:
    """Evaluate on as many actors as the cluster can hold.

    Raises:
        LanguagesFailedError: some tasks failed.
    """
    ray_session.start(config.resources)
    import ray

    pool = ray_session.open_actor_pool(HarnessWorker, config.resources, len(pending), run.uri, config.model_dump(mode="json"))
    for task in pending.items():  # sorted by language, then method: an adapter is read once for its tasks
        forget_kill(_artifact(run, task[0]))
        pool.submit(lambda actor, call: actor.evaluate.remote(*call), task)
    messages, complete = dict[str, None](), set[HarnessTask]()
    for done in range(len(pending)):
        try:
            complete.add(pool.get_next_unordered())
        except ray.exceptions.RayError as error:
            messages[ray_session.user_message(error)] = None
        progress("eval", total - len(pending) + done + 1, total)
    if failed := [each for each in pending if each not in complete]:
        raise LanguagesFailedError(_explain_failures(run, failed, list(messages)))


def _explain_failures(run: RunDir, failed: Sequence[HarnessTask], messages: Sequence[str]) -> dict[str, str]:
    """The reason for each language: the killed worker of one of its tasks, or else every message."""
    reasons: dict[str, str] = {}
    for task in failed:
        if killed := find_kill(_artifact(run, task)):
            reasons[task.language] = f"evaluation: {killed}"
        reasons.setdefault(task.language, f"evaluation: {'; '.join(messages)}")
    return reasons


class HarnessWorker:
    """Ray actor: holds the base model and evaluates one task at a time."""

    def __init__(self, uri: str, settings: Mapping[str, Any]) -> None:
        """Load the base model of a run."""
        import torch

        from compass_ray.models.base_model import load_base

        self.run, self.config = RunDir(uri), RunConfig.model_validate(settings)
        torch.set_num_threads(self.config.resources.threads_per_worker)
        self.base = load_base(self.config.train)

    def evaluate(self, task: HarnessTask, identity: Identity) -> HarnessTask:
        """Evaluate one task and publish its results. Returns the task."""
        from compass_ray.models.devices import device_name
        from compass_ray.models.memory_watch import watch_memory
        from compass_ray.models.token_memory import choose_scoring_batch

        started, layout = time.monotonic(), task_layouts().get(task.task)
        artifact, tokens = _artifact(self.run, task), choose_scoring_batch(self.config.evaluate, self.config.resources, self.base)
        trained = find_model_artifact(self.run, task.method, task.language, task.version)
        with (
            self._task_folder(task, layout) as (folder, names),
            open_method_model(self.base, self.config.train, task.method, trained) as model,
        ):
            with watch_memory(artifact, "evaluate.batch_tokens", tokens, advice=_MEMORY_ADVICE.format(tokens=tokens)):
                results = self._evaluate(model, task, layout, folder, names, tokens)
            writer = artifact.begin(identity)
            writer.write_folder(lambda target: _copy_task(folder, target))
        record = self._write(writer, task, layout, names, results)
        metrics = {**record.to_json(), "seconds": round(time.monotonic() - started, 2)}
        writer.publish(metrics, host_cpus=os.cpu_count(), device=device_name(self.base.device))
        return task

    @contextmanager
    def _task_folder(self, task: HarnessTask, layout: TaskLayout | None) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """A folder with the files of a task, and the names to evaluate."""
        with TemporaryDirectory(prefix="compass_ray-tasks-") as name:
            folder = Path(name)
            if layout is None:
                yield folder, (task.task,)
                return
            with self._rows(task) as rows:
                if rows != Path(task.folder or ""):  # they are made for this run, so the artifact keeps them
                    (folder / _ROWS).write_bytes((rows / _ROWS).read_bytes())
                    rows = folder
                tasks = build_tasks(layout, task.language, rows, self.config.evaluate.scoring)
                write_tasks(tasks, folder)
                yield folder, (next(reversed(tasks)),)

    @contextmanager
    def _rows(self, task: HarnessTask) -> Iterator[Path]:
        if task.task == ONERULER:
            with TemporaryDirectory(prefix="compass_ray-oneruler-") as name:
                self._write_oneruler(task, Path(name))
                yield Path(name)
            return
        if task.folder is not None:
            yield Path(task.folder)
            return
        with self.run.guide(task.language).local_folder("test.parquet") as folder:
            yield folder

    def _write_oneruler(self, task: HarnessTask, folder: Path) -> None:
        """Write the prompts, of a length in tokens of the base model."""
        import pyarrow.parquet as pq

        settings, source = self.config.evaluate.long_context, Path(task.folder or "")
        rows = oneruler_rows(source, task.language, settings, self.config.seed, lambda text: _count_tokens(self.base, text))
        pq.write_table(rows, folder / _ROWS)

    def _evaluate(
        self, model: BaseModel, task: HarnessTask, layout: TaskLayout | None, folder: Path, names: Sequence[str], tokens: int
    ) -> dict[str, Any]:
        from compass_ray.harness.lm_eval_backend import HarnessSettings, evaluate_tasks

        settings = self.config.evaluate.harness
        device_default: int | str = "auto" if self.base.device.type == "cuda" else 1
        chosen = HarnessSettings(
            limit=settings.limit,
            num_fewshot=settings.num_fewshot,
            chat_template=settings.chat_template and not (layout is not None and layout.plain),
            batch_size=settings.batch_size or device_default,
            batch_tokens=tokens,
        )
        if layout is None:
            return evaluate_tasks(model, names, [Path(task.include)] if task.include else [], chosen)
        with TemporaryDirectory(prefix="compass_ray-rows-") as cache:
            return evaluate_tasks(model, names, [folder], chosen, Path(cache))

    def _write(
        self, writer: Writer, task: HarnessTask, layout: TaskLayout | None, names: Sequence[str], results: Mapping[str, Any]
    ) -> HarnessRecord:
        from compass_ray.harness.lm_eval_backend import to_plain
        from compass_ray.harness.results import build_items_table, build_record

        record = build_record(task.task, names[0], results, layout, self._fields(task, layout))
        writer.write_table("items.parquet", build_items_table(results["samples"], record.metric))
        writer.write_json("lm_eval.json", to_plain(results))
        record.write(writer)
        return record

    def _fields(self, task: HarnessTask, layout: TaskLayout | None) -> dict[str, Any]:
        settings = self.config.evaluate.harness
        return {
            "language": task.language,
            "method": task.method,
            "version": task.version,
            "chat_template": settings.chat_template and not (layout is not None and layout.plain),
            "limit": settings.limit,
            "harness": harness_version(),
        }


def _copy_task(source: Path, target: Path) -> None:
    """Copy the files of a task; rows among them are named without their folder."""
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    for path in target.glob("*.yaml"):
        path.write_text(path.read_text("utf-8").replace(f"{source.resolve()}/", ""), "utf-8")
