"""Task files for lm-evaluation-harness: its own task, with rows from this machine instead of the hub.

A file includes the harness's own and replaces the data set alone, so prompts, metrics and filters stay the harness's. The
command ``lm_eval`` reads the same files (``--include_path``), so a run and an endpoint are asked the same.
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
        text = yaml.safe_dump(dict(settings), allow_unicode=True, sort_keys=False, width=120)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def _task(layout: TaskLayout, language: str, part: str, data: Mapping[str, Any], scoring: Scoring) -> dict[str, Any]:
    include = {"include": str(harness_task_file(layout, language, part))} if layout.base else {}
    letters = layout.letter_settings if scoring == "letter" else {}
    return {**include, "task": task_name(layout, language, part), **data, **layout.settings, **letters}


def _group(layout: TaskLayout, language: str) -> dict[str, Any]:
    names = [task_name(layout, language, part) for part in layout.parts]
    return {"group": task_name(layout, language), "task": names, "aggregate_metric_list": [dict(layout.aggregate)]}


def _dataset(layout: TaskLayout, language: str, folder: Path) -> dict[str, Any]:
    """The settings of the data set: files by split, and how they are read. Without few-shot rows, no split of them."""
    found = {split: _find_files(layout, language, folder, split) for split in layout.files}
    asked = next(iter(layout.files))
    if not found[asked]:
        patterns = ", ".join(layout.fill(pattern, language) for pattern in layout.files[asked])
        raise ConfigError(f"{folder} has no rows of {layout.title} for {language!r}: there is no {patterns}")
    ending = table_ending(found[asked][0])
    files = {split: paths for split, paths in found.items() if paths and table_ending(paths[0]) == ending}
    return {
        "dataset_path": "parquet" if ending == ".parquet" else "csv" if ending in DELIMITERS else "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, **_table_options(layout, ending)},
        **(_without_examples(asked) if len(files) < len(layout.files) else {}),
    }


def _without_examples(asked: str) -> dict[str, None]:
    """Settings without a split of few-shot examples; the harness would read it even if it shows none."""
    splits = ("fewshot_split", "training_split", *(("validation_split",) if asked == "test" else ()))
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
