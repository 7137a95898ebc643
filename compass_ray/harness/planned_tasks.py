"""What there is to evaluate with lm-evaluation-harness in a run, and what each result depends on.

No model is loaded. The names of tasks of others are looked up in the task files of the harness and of the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compass_ray.adapters.method_model import find_model_artifact
from compass_ray.artifacts import FULL_FINETUNING, Identity, RunDir, content_hash, version_of
from compass_ray.config import ConfigError, RunConfig
from compass_ray.harness.layouts import TEST_SET, flores_code, harness_folder, harness_version, task_layouts
from compass_ray.harness.oneruler import ONERULER
from compass_ray.harness.task_files import build_tasks
from compass_ray.models.model_resolver import model_identity

BASE = "base"
"""The method that evaluates the base model without an adapter."""
_MOST_HASHED_BYTES = 1 << 20


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
    """Folder of task files of the user, for a task of others."""


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
        ConfigError: a method has no adapter, the rows of a task have no folder, ``data`` names another task, ``include`` is no
            folder, or the braces of a name are unknown.
    """
    if include is not None and not Path(include).is_dir():
        raise ConfigError(f"--include {include} is not a folder on this machine")
    if unused := ", ".join(sorted(data.keys() - {*tasks})):
        raise ConfigError(
            f"--data gives folders of tasks that are not evaluated: {unused}; add them to --tasks, or leave them out"
        )
    others = {task for task in tasks if task not in task_layouts()}
    return [
        HarnessTask(
            _fill(task, code),
            method,
            code,
            _version(config, run, method, code),
            _folder(config, task, data),
            include if task in others else None,
        )
        for code in config.languages
        for method in dict.fromkeys(methods)
        for task in dict.fromkeys(tasks)
    ]


def _fill(task: str, language: str) -> str:
    try:
        return task.format(language=language, flores=flores_code(language)) if "{" in task else task
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"{task} is no name of a task; braces can have language or flores") from error


def expand_tags(wanted: Sequence[HarnessTask]) -> list[HarnessTask]:
    """The tasks with each tag replaced by its tasks, as the harness evaluates it.

    Raises:
        ConfigError: the harness is not installed, or a task is unknown.
    """
    harness_folder()
    others = {each.task: each.include for each in wanted if each.task not in task_layouts()}
    if not others:
        return list(wanted)
    from compass_ray.harness.lm_eval_backend import expand_tags as tasks_of

    found = tasks_of(others, [Path(folder) for folder in set(others.values()) if folder])
    return list(dict.fromkeys(replace(each, task=name) for each in wanted for name in found.get(each.task, (each.task,))))


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
    """Hash of names and contents of the user's files: tasks, code and rows. Of a file above 1 MiB, the size."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return content_hash(*(part for path in files for part in (str(path.relative_to(folder)), _content_or_size(path))))


def _content_or_size(path: Path) -> str:
    size = path.stat().st_size
    return str(size) if size > _MOST_HASHED_BYTES else path.read_bytes().decode("utf-8", "backslashreplace")


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
