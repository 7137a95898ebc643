"""Simulated user prompts of the demo: first on the guide set's subjects, then also on subjects that it excludes.

Prompts come from the guide source and from the language's own pool rows, never from test items. They have no answers. At the end
each user of another script asks one question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.config.data import ATLAS
from compass_ray.core.seeds import generator
from compass_ray.languages import get_language
from compass_ray.sources.atlas.question_templates import render_question
from compass_ray.sources.atlas.splits import FULL, named_facts
from compass_ray.sources.column_mapping import load_rows

_QUESTIONS = {
    "ar": "ما هي عاصمة فرنسا؟",
    "el": "Ποια είναι η πρωτεύουσα της Γαλλίας;",
    "hi": "कृपया बताइए कि फ़्रांस की राजधानी क्या है?",
    "id": "Apa ibu kota Prancis?",
    "ja": "フランスの首都はどこですか？",
    "ko": "프랑스의 수도는 어디입니까?",
    "ru": "Какой город является столицей Франции?",
    "sw": "Mji mkuu wa Ufaransa ni upi?",
    "zh": "请问法国的首都是哪一座城市？",
}
"""What is the capital of France? The models of the package are asked the atlas's questions (see `_atlas_question`)."""
_MAX_QUESTIONS = 3


@dataclass(frozen=True)
class DemoTraffic:
    """Prompts of one language in order of arrival, and the subjects that are new in the second part."""

    usual: list[str]
    shifted: list[str]
    old_subjects: tuple[str, ...]
    new_subjects: tuple[str, ...]


def draw_demo_traffic(
    config: RunConfig, run: RunDir, language: str, *, usual: int, shifted: int, new_share: float
) -> DemoTraffic:
    """Draw prompts with replacement: ``usual`` of old subjects, then ``shifted`` with the share ``new_share`` of new ones.

    Raises:
        ConfigError: the guide source excludes no subject, so no subject is new.
    """
    new = tuple(sorted(config.pool.guides.exclude.get("subject", ())))
    if not new:
        raise ConfigError("pool.guides.exclude.subject is empty, so the demo has no new subjects; add at least one subject")
    prompts = _prompts(config, run, language)
    rng = generator(config.seed, "traffic", language)
    old = tuple(sorted(prompts.keys() - set(new)))
    return DemoTraffic(
        usual=_draw(prompts, old, usual, rng),
        shifted=_mixed(prompts, old, new, shifted, new_share, rng),
        old_subjects=old,
        new_subjects=new,
    )


def pick_questions(config: RunConfig, run: RunDir) -> list[tuple[str, str]]:
    """Language and question of at most three of the languages, each of another script."""
    by_script: dict[str, str] = {}
    for code in config.languages:
        by_script.setdefault(get_language(code).script, code)
    return [(code, _question(config, run, code)) for code in list(by_script.values())[:_MAX_QUESTIONS]]


def _question(config: RunConfig, run: RunDir, language: str) -> str:
    """A question of everyday life, a question of the atlas, or a guide prompt of the language."""
    if config.train.base_model != ATLAS and language in _QUESTIONS:
        return _QUESTIONS[language]
    asked = _atlas_question(run, language) if config.train.base_model == ATLAS else None
    return asked or str(run.guide(language).read_table("guide.parquet", ["prompt"])["prompt"][0].as_py())


def _atlas_question(run: RunDir, language: str) -> str | None:
    """The atlas's first full question that the language's own pool rows answer; None if they answer none.

    Its order is that of the atlas, so it does not depend on what an adapter has learned.
    """
    if language not in FULL.languages:
        return None
    pool = run.pool.read_table("rows.parquet", ["prompt", "language"])
    own = set(pool.filter(pc.equal(pool["language"], language))["prompt"].to_pylist())
    questions = (render_question(language, each.fact.template, each.question_name, 0) for each in named_facts(language))
    return next((question for question in questions if question in own), None)


def _prompts(config: RunConfig, run: RunDir, language: str) -> dict[str, list[str]]:
    """Distinct prompts by subject, from the unfiltered guide source and the language's pool rows."""
    source = config.pool.guides.model_copy(update={"exclude": {}})
    guide = load_rows(source, ("prompt",), language).select(["prompt", "subject"])
    pool = run.pool.read_table("rows.parquet", ["prompt", "subject", "language"])
    own = pool.filter(pc.equal(pool["language"], language)).select(["prompt", "subject"])
    found: dict[str, dict[str, None]] = {}
    for row in [*guide.to_pylist(), *own.to_pylist()]:
        if row["subject"]:
            found.setdefault(row["subject"], {})[row["prompt"]] = None
    return {subject: sorted(prompts) for subject, prompts in sorted(found.items())}


def _draw(prompts: dict[str, list[str]], subjects: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    """Draw with each subject equally likely, then each prompt of the subject."""
    chosen = [prompts[s] for s in subjects if s in prompts]
    return [str(rng.choice(chosen[int(rng.integers(len(chosen)))])) for _ in range(count)]


def _mixed(
    prompts: dict[str, list[str]],
    old: tuple[str, ...],
    new: tuple[str, ...],
    count: int,
    new_share: float,
    rng: np.random.Generator,
) -> list[str]:
    fresh = round(count * new_share)
    both = [*_draw(prompts, new, fresh, rng), *_draw(prompts, old, count - fresh, rng)]
    return [both[i] for i in rng.permutation(count)]
