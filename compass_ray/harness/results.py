"""Results of lm-evaluation-harness as a record and a table of items. Pure functions of the harness's result."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from compass_ray import schemas
from compass_ray.harness.layouts import TaskLayout
from compass_ray.records.harness import HarnessRecord

Sample = Mapping[str, Any]
"""One item as the harness logs it: its document, requests, replies and metrics."""
_NO_METRICS = ("name", "alias", "sample_len", "sample_count")
_STDERR = "_stderr,"


def read_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of one task of the harness by ``metric,filter``, with standard errors; without texts and counts.

    >>> read_metrics({"alias": "a", "sample_len": 2, "acc,none": 0.5, "acc_stderr,none": "N/A"})
    {'acc,none': 0.5}
    """
    kept = {name: value for name, value in results.items() if name not in _NO_METRICS}
    return {name: float(value) for name, value in kept.items() if isinstance(value, int | float) and not math.isnan(value)}


def stderr_of(metrics: Mapping[str, float], metric: str) -> float | None:
    """The standard error of ``metric,filter``; None without one.

    >>> stderr_of({"acc,none": 0.5, "acc_stderr,none": 0.1}, "acc,none")
    0.1
    """
    name, _, chosen = metric.partition(",")
    return metrics.get(f"{name}{_STDERR}{chosen}")


def first_metric(metrics: Mapping[str, float]) -> str | None:
    """The first metric that is no standard error."""
    return next((name for name in metrics if _STDERR not in name), None)


def build_record(
    task: str, name: str, results: Mapping[str, Any], layout: TaskLayout | None, fields: Mapping[str, Any]
) -> HarnessRecord:
    """The record of one task.

    Args:
        task: its name here.
        name: its name in the harness, or that of its group.
        results: the harness's results.
        layout: its layout; None for a task of others, whose first metric is the main one.
        fields: further fields of the record.
    """
    metrics = {each: read_metrics(values) for each, values in results["results"].items()}
    main = metrics.get(name, {})
    metric = layout.primary if layout and layout.primary in main else first_metric(main)
    subtasks = {f"{each}/{key}": value for each, found in metrics.items() if each != name for key, value in found.items()}
    return HarnessRecord(
        task=task,
        items=sum(counts["effective"] for counts in results["n-samples"].values()),
        metric=metric,
        value=main.get(metric) if metric else None,
        stderr=stderr_of(main, metric) if metric else None,
        chance=_chance(metric, results, layout),
        truncated=results.get("truncated"),
        metrics={**main, **subtasks},
        num_fewshot=results["n-shot"].get(name),
        **fields,
    )


def _chance(metric: str | None, results: Mapping[str, Any], layout: TaskLayout | None) -> float | None:
    """The chance level of a metric; None if it has none, or if a task's own code computes it."""
    configs = results.get("configs", {}).values() if layout is None else ()
    if not _has_chance(metric) or any(config.get("process_results") for config in configs):
        return None
    samples = (sample for each in results["samples"].values() for sample in each)
    return chance_level(samples, layout.option_prefix if layout else None)


def _has_chance(metric: str | None) -> bool:
    """Whether a uniform choice has a known value: 1 / number of options.

    >>> _has_chance("acc_norm,none"), _has_chance("mcc,none"), _has_chance("f1,none")
    (True, False, False)
    """
    return metric is not None and metric.startswith(("acc", "exact_match"))


def chance_level(samples: Iterable[Sample], option_prefix: str | None = None) -> float | None:
    """The accuracy of a uniform choice: the mean over items of 1 / number of options.

    Args:
        samples: items of one task.
        option_prefix: columns of the options of items that are answered by a generated letter.

    Returns:
        None without items, or if the number of options of an item is unknown, as for free answers.
    """
    counts = [_count_options(sample, option_prefix) for sample in samples]
    return float(np.mean([1 / count for count in counts])) if counts and all(counts) else None


def _count_options(sample: Sample, option_prefix: str | None) -> int:
    if option_prefix:
        return sum(bool(value) for name, value in sample["doc"].items() if name.startswith(option_prefix))
    # For mutual information, each option is scored without its prompt too.
    requests = len(sample["arguments"]) // (2 if "acc_mutual_info" in sample.get("metrics", ()) else 1)
    return requests if _is_choice(sample) else 0


def _is_choice(sample: Sample) -> bool:
    """Whether the replies are log-probabilities of several options, not a generated text."""
    return len(sample["arguments"]) > 1 and not isinstance(sample["resps"][0][0], str)


def build_items_table(samples: Mapping[str, Sequence[Sample]], metric: str | None) -> pa.Table:
    """One row for each item (schemas.HARNESS_ITEMS), by task and item number.

    Args:
        samples: items by name of their task.
        metric: the metric and filter of ``value``; None for the first of each task.
    """
    rows = [row for task in sorted(samples) for row in _item_rows(task, samples[task], metric or _logged_metric(samples[task]))]
    return pa.Table.from_pylist(rows, schemas.HARNESS_ITEMS)


def _logged_metric(samples: Sequence[Sample]) -> str:
    """The first metric and filter of a task's items."""
    return next((f"{sample['metrics'][0]},{sample['filter']}" for sample in samples if sample["metrics"]), "")


def _item_rows(task: str, samples: Sequence[Sample], metric: str) -> list[dict[str, Any]]:
    name, _, chosen = metric.partition(",")
    return [_item_row(task, sample, name) for sample in samples if sample.get("filter", chosen) == chosen]


def _item_row(task: str, sample: Sample, metric: str) -> dict[str, Any]:
    is_choice = _is_choice(sample)
    scores = [reply[0] for reply in sample["resps"]] if is_choice else []
    value = sample.get(metric)
    return {
        "task": task,
        "item": sample["doc_id"],
        "item_hash": sample["doc_hash"],
        "prompt_hash": sample["prompt_hash"],
        "target": _to_text(sample["target"]),
        "reply": None if is_choice else _to_text(sample["filtered_resps"][0]),
        "log_probs": [float(score) for score, _ in scores],
        "is_greedy": [bool(is_greedy) for _, is_greedy in scores],
        "value": float(value) if isinstance(value, int | float) else None,
    }


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
