"""Every setting of every section says what it does, in short sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from compass_ray.config import RunConfig
from compass_ray.config.base import ConfigSection
from compass_ray.config.reference import list_settings
from compass_ray.evaluation.experiments.variants import ExperimentConfig

MAX_WORDS = 25


def sections_within(annotation: Any, known: set[type[ConfigSection]]) -> Iterator[type[ConfigSection]]:
    """Sections of an annotation at any depth: nested ones, members of unions, entries of lists and values of mappings."""
    if isinstance(annotation, type) and issubclass(annotation, ConfigSection):
        if annotation not in known:
            known.add(annotation)
            yield annotation
            for field in annotation.model_fields.values():
                yield from sections_within(field.annotation, known)
        return
    for each in get_args(annotation):
        yield from sections_within(each, known)


def faults(section: type[ConfigSection]) -> list[str]:
    """Settings of a section without a description, or with a sentence that is too long or has no end."""
    found = []
    for name, field in section.model_fields.items():
        text = " ".join((field.description or "").split())
        long = [each for each in re.split(r"(?<=[.;:])\s", text) if len(each.split()) > MAX_WORDS]
        if not text or long or not text.endswith("."):
            found.append(f"{section.__name__}.{name}: {text!r}")
    return found


SECTIONS = [*sections_within(RunConfig, set()), ExperimentConfig]


def test_all_sections_are_found() -> None:
    assert {each.__name__ for each in SECTIONS} >= {"RunConfig", "SourceConfig", "BiasConfig", "AdapterConfig", "TransferConfig"}
    assert len(list_settings()) > 200


@pytest.mark.parametrize("section", SECTIONS, ids=lambda each: each.__name__)
def test_every_setting_has_a_description(section: type[ConfigSection]) -> None:
    assert not faults(section)


def test_a_setting_without_a_description_is_found() -> None:
    class Inner(ConfigSection):
        told: int = 1
        """What it does."""
        silent: int = 1
        unended: int = 1
        """what it does"""

    class Outer(ConfigSection):
        several: tuple[Inner, ...] | None = None

    assert list(sections_within(Outer, set())) == [Outer, Inner]
    assert faults(Inner) == ["Inner.silent: ''", "Inner.unended: 'what it does'"]
