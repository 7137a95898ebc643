"""Every layout against lm-evaluation-harness's own task: same prompt and metrics, rows from a local copy of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from compass_ray.config import ConfigError
from compass_ray.harness import layouts
from compass_ray.harness.layouts import TaskLayout, flores_code, harness_task_file, task_layouts
from compass_ray.harness.oneruler import ONERULER
from compass_ray.harness.results import build_record
from compass_ray.harness.task_files import build_tasks, task_name, write_tasks
from compass_ray.languages import GLOBAL_MMLU, LANGUAGES, MMLU_PROX
from compass_ray.models.base_model import BaseModel
from tests.unit.harness.hub_copies import CHANCE, COPIES, ITEMS
from tests.unit.harness.hub_copies import LANGUAGES as OTHER_LANGUAGES

BENCHMARKS = sorted(COPIES)
KEPT = ("doc_to_text", "doc_to_choice", "doc_to_target", "filter_list", "description", "num_fewshot", "output_type")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _layout(name: str) -> TaskLayout:
    """A layout with one part at most."""
    found = task_layouts()[name]
    return found.model_copy(update={"parts": ("law",)}) if found.parts else found


def _copy(name: str, folder: Path) -> Path:
    COPIES[name](folder / name)
    return folder / name


def test_every_benchmark_has_a_copy_here() -> None:
    assert {*BENCHMARKS, layouts.TEST_SET, ONERULER} == set(task_layouts())


def test_flores_codes() -> None:
    assert len({flores_code(code) for code in LANGUAGES}) == len(LANGUAGES)
    known = {"fa": "pes_Arab", "zh": "zho_Hans", "fil": "tgl_Latn", "ko": "kor_Hang", "ms": "zsm_Latn", "mg": "plt_Latn"}
    assert {code: flores_code(code) for code in known} == known


@pytest.mark.parametrize(
    ("name", "languages"),
    [("global_mmlu", GLOBAL_MMLU), ("mmlu_prox", MMLU_PROX), ("belebele", tuple(LANGUAGES)), ("sib200", tuple(LANGUAGES))],
)
def test_the_harness_has_the_task_in_the_languages(name: str, languages: tuple[str, ...]) -> None:
    pytest.importorskip("lm_eval")
    assert all(harness_task_file(_layout(name), code, "law").is_file() for code in languages)


def test_a_language_that_the_harness_lacks_is_named(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(ConfigError, match="no task of XNLI for 'am'"):
        harness_task_file(task_layouts()["xnli"], "am")


def test_missing_rows_are_named_with_their_pattern(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no rows of Belebele for 'sw': there is no data/swh_Latn\.jsonl"):
        build_tasks(task_layouts()["belebele"], "sw", tmp_path)


def test_an_absent_harness_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'compass-ray\[eval\]'"):
        layouts.harness_folder()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_prompt_and_metrics_are_those_of_the_harness(name: str, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.tasks._yaml_loader import load_yaml

    language, layout = OTHER_LANGUAGES.get(name, "sw"), _layout(name)
    part = layout.parts[0] if layout.parts else ""
    write_tasks(build_tasks(layout, language, _copy(name, tmp_path)), tmp_path)
    written = load_yaml(tmp_path / f"{task_name(layout, language, part)}.yaml", resolve_func=False)
    theirs = load_yaml(harness_task_file(layout, language, part), resolve_func=False)
    assert {key: written.get(key) for key in KEPT} == {key: theirs.get(key) for key in KEPT}
    names = [each["metric"] for each in written["metric_list"]]
    assert set(names) <= {each["metric"] for each in theirs["metric_list"]}
    assert layout.primary.partition(",")[0] in names


@pytest.mark.parametrize("name", BENCHMARKS)
def test_local_rows_are_evaluated(name: str, tmp_path: Path, base: BaseModel) -> None:
    pytest.importorskip("lm_eval")
    from compass_ray.harness.lm_eval_backend import HarnessSettings, evaluate_tasks

    language, layout = OTHER_LANGUAGES.get(name, "sw"), _layout(name)
    tasks = build_tasks(layout, language, _copy(name, tmp_path))
    for task in tasks.values():
        _shorten(task)
    write_tasks(tasks, tmp_path)
    base.model.config.max_position_embeddings = 4096
    settings = HarnessSettings(chat_template=not layout.plain, num_fewshot=0, max_length=4096)
    results = evaluate_tasks(base, [task_name(layout, language)], [tmp_path], settings)
    record = build_record(name, task_name(layout, language), results, layout, {})
    assert record.metric == layout.primary
    assert record.value is not None
    assert (record.items, record.chance) == (ITEMS.get(name, 2), pytest.approx(CHANCE.get(name)))


def _shorten(task: dict[str, Any]) -> None:
    """Generate few tokens."""
    if "mgsm" in task.get("task", "") or "mmlu_prox" in task.get("task", "") or "xquad" in task.get("task", ""):
        task["generation_kwargs"] = {"max_gen_toks": 4, "until": ["\n"], "do_sample": False}
