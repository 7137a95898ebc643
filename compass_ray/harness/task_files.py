"""Task files for lm-evaluation-harness: its own task, with rows from this machine instead of the hub.

A file includes the harness's own and replaces the data set alone, so prompts, metrics and filters stay the harness's. The
command ``lm_eval`` reads the same files (``--include_path``), so a run and an endpoint get the same prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from compass_ray.config import ConfigError
from compass_ray.harness.layouts import TaskLayout, harness_task_file
from compass_ray.models.multiple_choice_prompts import Scoring
from compass_ray.sources.source_paths import DELIMITERS, table_ending

_UNQUOTED = 3
"""``csv.QUOTE_NONE``: a quotation mark in a table with tabs is text."""


class HarnessFunction(str):
    """Import path of a function, which a task file names with a tag."""


class _TaskDumper(yaml.SafeDumper):
    """Writes task files."""


_TaskDumper.add_representer(HarnessFunction, lambda dumper, path: dumper.represent_scalar("!function", str(path)))


def task_name(layout: TaskLayout, language: str, part: str = "") -> str:
    """The name of a task in a language, such as ``belebele_sw``.

    >>> from compass_ray.harness.layouts import task_layouts
    >>> task_name(task_layouts()["mmlu_prox"], "sw", "law")
    'mmlu_prox_sw_law'
    """
    return "_".join(filter(None, (layout.name, language, part)))


def build_tasks(layout: TaskLayout, language: str, folder: Path, scoring: Scoring = "option") -> dict[str, dict[str, Any]]:
    """The tasks of a benchmark in a language, and their group if there are several, by name.

    Args:
        layout: the benchmark.
        language: code of the language.
        folder: a copy of the benchmark's hub repository.
        scoring: how the run's own test set is scored; other benchmarks ignore it.

    Raises:
        ConfigError: the harness has no such task, or the folder has no rows of the language.
    """
    data = _dataset(layout, language, folder)
    if not layout.parts:
        return {task_name(layout, language): _task(layout, language, "", data, scoring)}
    tasks = {task_name(layout, language, part): _task(layout, language, part, data, scoring) for part in layout.parts}
    return {**tasks, task_name(layout, language): _group(layout, language)}


def write_tasks(tasks: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write one YAML file for each task."""
    for name, settings in tasks.items():
        text = yaml.dump(dict(settings), Dumper=_TaskDumper, allow_unicode=True, sort_keys=False, width=120)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def _task(layout: TaskLayout, language: str, part: str, data: Mapping[str, Any], scoring: Scoring) -> dict[str, Any]:
    letters = layout.letter_settings if scoring == "letter" else {}
    functions = {name: HarnessFunction(path) for name, path in layout.functions.items()}
    name = task_name(layout, language, part)
    return {**_base(layout, language, part), "task": name, **data, **layout.settings, **letters, **functions}


def _base(layout: TaskLayout, language: str, part: str) -> dict[str, Any]:
    """The harness's own task: included, or the settings of it that are kept."""
    if layout.base is None:
        return {}
    path = harness_task_file(layout, language, part)
    if not layout.keep:
        return {"include": str(path)}
    own = yaml.safe_load(path.read_text("utf-8"))
    return {name: own[name] for name in layout.keep}


def _group(layout: TaskLayout, language: str) -> dict[str, Any]:
    names = [task_name(layout, language, part) for part in layout.parts]
    return {"group": task_name(layout, language), "task": names, "aggregate_metric_list": [dict(layout.aggregate)]}


def _dataset(layout: TaskLayout, language: str, folder: Path) -> dict[str, Any]:
    """The settings of the data set: files by split, and how they are read. Without few-shot rows, no split of them."""
    found = {each: _find_files(layout, language, folder, each) for each in layout.files}
    split = next(iter(layout.files))
    if not found[split]:
        patterns = ", ".join(layout.fill(pattern, language) for pattern in layout.files[split])
        raise ConfigError(f"{folder} has no rows of {layout.title} for {language!r}: there is no {patterns}")
    ending = table_ending(found[split][0])
    files = {each: paths for each, paths in found.items() if paths and table_ending(paths[0]) == ending}
    return {
        "dataset_path": "parquet" if ending == ".parquet" else "csv" if ending in DELIMITERS else "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, **_table_options(layout, ending)},
        **(_without_examples(split) if len(files) < len(layout.files) else {}),
    }


def _without_examples(split: str) -> dict[str, None]:
    """Settings without a split of few-shot examples; the harness would read it even if it shows none."""
    splits = ("fewshot_split", "training_split", *(("validation_split",) if split == "test" else ()))
    return dict.fromkeys(splits)


def _table_options(layout: TaskLayout, ending: str | None) -> dict[str, Any]:
    if ending not in DELIMITERS:
        return {}
    quoting = {"quoting": _UNQUOTED} if ending == ".tsv" else {}
    return {"sep": DELIMITERS[ending], **quoting, **layout.table}


def _find_files(layout: TaskLayout, language: str, folder: Path, split: str) -> list[str]:
    return next(filter(None, _matches(layout, language, folder, split)), [])


def _matches(layout: TaskLayout, language: str, folder: Path, split: str) -> Iterator[list[str]]:
    for pattern in layout.files[split]:
        yield sorted(str(path.resolve()) for path in folder.glob(layout.fill(pattern, language)))
