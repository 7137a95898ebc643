"""Stage: evaluate tasks of lm-evaluation-harness under every method and language, on actors that keep the base model.

Key property: each task of a method in a language is an artifact of its own, so a killed evaluation continues. The base model is
loaded once by each actor; adapters are attached to it in turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from compass_ray import ray_session
from compass_ray.adapters.method_model import find_model_artifact, open_method_model
from compass_ray.artifacts import (
    FULL_FINETUNING,
    Artifact,
    Identity,
    LanguagesFailedError,
    Manifest,
    RunDir,
    content_hash,
    version_of,
)
from compass_ray.config import ConfigError, RunConfig
from compass_ray.harness.layouts import TEST_SET, TaskLayout, flores_code, harness_folder, harness_version, task_layouts
from compass_ray.harness.oneruler import ONERULER, oneruler_rows
from compass_ray.harness.task_files import build_tasks, write_tasks
from compass_ray.models.model_resolver import model_identity
from compass_ray.progress import Progress, silent
from compass_ray.records.harness import HarnessRecord

if TYPE_CHECKING:
    from compass_ray.artifacts.writer import Writer
    from compass_ray.models.base_model import BaseModel

BASE = "base"
"""The method that evaluates the base model without an adapter."""
_ROWS = "test.parquet"
"""Rows of the test set of the run and of OneRuler."""


@dataclass(frozen=True)
class HarnessTask:
    """One task under one method: its language, adapter version (None is the base model) and where its rows are."""

    task: str
    method: str
    language: str
    version: str | None
    folder: str | None = None
    """Folder of the benchmark's files; None for the run's own test set and for tasks of others."""
    include: str | None = None
    """Folder of task files of the user."""


def plan(
    config: RunConfig,
    run: RunDir,
    *,
    tasks: Sequence[str],
    methods: Sequence[str],
    data: Mapping[str, str],
    include: str | None = None,
) -> list[HarnessTask]:
    """Every task under every method and language of a run, language by language.

    Args:
        config: settings of the run.
        run: the run.
        tasks: names of layouts, of files in ``include``, or of the harness; braces are replaced, as in `TaskLayout.fill`.
        methods: methods of the run, adapter versions such as v0002, or ``base``.
        data: folder by task, which goes before `evaluate.harness.data`.
        include: folder of task files of the user.

    Raises:
        ConfigError: a method has no adapter, the rows of a task have no folder, or the braces of a name are unknown.
    """
    return [
        HarnessTask(_fill(task, code), method, code, _version(config, run, method, code), _folder(config, task, data), include)
        for code in config.languages
        for method in dict.fromkeys(methods)
        for task in dict.fromkeys(tasks)
    ]


def _fill(task: str, language: str) -> str:
    try:
        return task.format(language=language, flores=flores_code(language)) if "{" in task else task
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"{task} is no name of a task; braces can have language or flores") from error


def check_tasks(wanted: Sequence[HarnessTask]) -> None:
    """Check the names of tasks before a model is loaded.

    Raises:
        ConfigError: the harness is not installed, or a task is unknown.
    """
    harness_folder()
    others = {each.task: each.include for each in wanted if each.task not in task_layouts()}
    if others:
        from compass_ray.harness.lm_eval_backend import open_task_manager

        open_task_manager(list(others), [Path(folder) for folder in set(others.values()) if folder])


def _version(config: RunConfig, run: RunDir, method: str, language: str) -> str | None:
    if method == BASE:
        return None
    version = version_of(config, method) if method in config.select.methods else method
    found = run.full_model(language, method) if method == FULL_FINETUNING else run.adapter(language, version)
    if found.manifest() is None:
        known = ", ".join((BASE, *config.select.methods, *run.adapter_versions(language)))
        raise ConfigError(f"{run.shown_uri} has no adapter {method!r} for {language!r}; choose of {known}")
    return version


def _folder(config: RunConfig, task: str, data: Mapping[str, str]) -> str | None:
    if task == TEST_SET or task not in task_layouts():
        return None
    if task in data:
        return data[task]
    settings = config.evaluate.harness
    if settings.data is None:
        raise ConfigError(f"the rows of {task} have no folder; give --data {task}=FOLDER, or set evaluate.harness.data")
    return settings.data.replace("{task}", task) if "{task}" in settings.data else f"{settings.data}/{task}"


def run_tasks(
    config: RunConfig, run: RunDir, wanted: Sequence[HarnessTask], *, force: bool = False, progress: Progress = silent
) -> list[Manifest]:
    """Evaluate what is missing, several tasks at the same time.

    Raises:
        ConfigError: the harness is not installed, or the rows of a task cannot be found.
        LanguagesFailedError: some tasks failed; the artifacts of the others are complete.
    """
    identities = {each: identify(config, run, each) for each in wanted}
    pending = [each for each in wanted if not _artifact(run, each).find_complete(identities[each], force=force)]
    if pending:
        _evaluate_all(config, run, [(each, identities[each]) for each in pending], progress, len(wanted))
    return [_artifact(run, each).require() for each in wanted]


def _artifact(run: RunDir, task: HarnessTask) -> Artifact:
    return run.harness(task.method, task.language, task.task)


def _evaluate_all(
    config: RunConfig, run: RunDir, pending: Sequence[tuple[HarnessTask, Identity]], progress: Progress, total: int
) -> None:
    """Evaluate on as many actors as the cluster can hold.

    Raises:
        LanguagesFailedError: some tasks failed.
    """
    ray_session.start(config.resources)
    import ray

    pool = ray_session.open_actor_pool(HarnessWorker, config.resources, len(pending), run.uri, config.model_dump(mode="json"))
    for task in pending:  # sorted by language, then method: an adapter is read once for its tasks
        pool.submit(lambda actor, call: actor.evaluate.remote(*call), task)
    messages, complete = dict[str, None](), set[HarnessTask]()
    for done in range(len(pending)):
        try:
            complete.add(pool.get_next_unordered())
        except ray.exceptions.RayError as error:
            messages[ray_session.user_message(error)] = None
        progress("eval", total - len(pending) + done + 1, total)
    failed = dict.fromkeys(each.language for each, _ in pending if each not in complete)
    if failed:
        raise LanguagesFailedError({language: f"evaluation: {'; '.join(messages)}" for language in failed})


def identify(config: RunConfig, run: RunDir, task: HarnessTask) -> Identity:
    """What a result depends on: model, task and rows, and how it was evaluated."""
    trained = find_model_artifact(run, task.method, task.language, task.version)
    guide = run.guide(task.language)
    artifacts = [each for each in (trained, guide if task.task == TEST_SET else None) if each is not None]
    settings = config.evaluate.harness.fingerprint_settings(include={"limit", "num_fewshot", "chat_template"})
    if task.task == TEST_SET:
        settings["scoring"] = config.evaluate.scoring
    if task.task == ONERULER:
        settings |= {"long_context": config.evaluate.long_context.fingerprint_settings(), "seed": config.seed}
    return Identity(
        "harness",
        {
            **settings,
            "task": task.task,
            "rows": _rows_hash(task),
            "base_model": model_identity(config.train.base_model, config.train.revision),
            "dtype": config.train.dtype,
            "harness": harness_version(),
            **({"task_files": _task_files_hash(Path(task.include))} if task.include else {}),
        },
        {each.name: each.require().fingerprint for each in artifacts},
    )


def _task_files_hash(folder: Path) -> str:
    """Hash of names and contents of the user's task files and their code."""
    files = (path for path in sorted(folder.rglob("*")) if path.suffix in (".yaml", ".py"))
    return content_hash(*(part for path in files for part in (str(path.relative_to(folder)), path.read_text("utf-8"))))


def _rows_hash(task: HarnessTask) -> str:
    """Hash of names and sizes of the files that are read; empty for the run's own test set and for tasks of others."""
    layout = task_layouts().get(task.task)
    if layout is None or task.folder is None:
        return ""
    if task.task == ONERULER:
        return content_hash(*(f"{path.name}:{path.stat().st_size}" for path in _oneruler_files(Path(task.folder), task.language)))
    tasks = build_tasks(layout, task.language, Path(task.folder))
    files = {path for each in tasks.values() for paths in _data_files(each).values() for path in paths}
    return content_hash(*(f"{Path(path).name}:{Path(path).stat().st_size}" for path in sorted(files)))


def _oneruler_files(folder: Path, language: str) -> list[Path]:
    texts = (path for part in ("prompt", "books") for path in (folder / part / language).glob("*"))
    return sorted((*texts, *(path for path in (folder / "vocab").rglob("*") if path.is_file())))


def _data_files(task: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    files: Mapping[str, Sequence[str]] = task.get("dataset_kwargs", {}).get("data_files", {})
    return files


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

        started, layout = time.monotonic(), task_layouts().get(task.task)
        trained = find_model_artifact(self.run, task.method, task.language, task.version)
        with (
            self._task_folder(task, layout) as (folder, names),
            open_method_model(self.base, self.config.train, task.method, trained) as model,
        ):
            results = self._evaluate(model, task, layout, folder, names)
            writer = _artifact(self.run, task).begin(identity)
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

        from compass_ray.harness.lm_eval_backend import check_prompt_length

        new_tokens = task_layouts()[ONERULER].settings["generation_kwargs"]["max_gen_toks"]
        check_prompt_length(self.base, max(self.config.evaluate.long_context.tokens), new_tokens)

        def count(text: str) -> int:
            return len(self.base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

        settings, source = self.config.evaluate.long_context, Path(task.folder or "")
        pq.write_table(oneruler_rows(source, task.language, settings, self.config.seed, count), folder / "test.parquet")

    def _evaluate(
        self, model: BaseModel, task: HarnessTask, layout: TaskLayout | None, folder: Path, names: Sequence[str]
    ) -> dict[str, Any]:
        from compass_ray.harness.lm_eval_backend import HarnessSettings, evaluate_tasks

        settings = self.config.evaluate.harness
        device_default: int | str = "auto" if self.base.device.type == "cuda" else 1
        chosen = HarnessSettings(
            limit=settings.limit,
            num_fewshot=settings.num_fewshot,
            chat_template=settings.chat_template and not (layout is not None and layout.plain),
            batch_size=settings.batch_size or device_default,
        )
        folders = [folder, *([Path(task.include)] if task.include else [])]
        return evaluate_tasks(model, names, folders, chosen)

    def _write(
        self, writer: Writer, task: HarnessTask, layout: TaskLayout | None, names: Sequence[str], results: Mapping[str, Any]
    ) -> HarnessRecord:
        from compass_ray.harness.lm_eval_backend import to_plain
        from compass_ray.harness.results import build_items_table, build_record

        record = build_record(task.task, names[0], results, layout, self._fields(task, layout))
        if record.metric:
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
