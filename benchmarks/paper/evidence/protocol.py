"""The protocol: what is run and how it is analysed, with its hash. After freezing, another hash is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from compass_ray.artifacts import content_hash
from compass_ray.config.base import ConfigSection

PROTOCOL = Path(__file__).parents[1] / "protocol.yaml"
EVALUATION = "evaluation"
"""Name of the try that scores the evaluation languages; with a suffix, of another one that does."""
ZERO_SHOT = "zero_shot"
SMALL_TOKENS = 400
"""Trained tokens of a small test."""

Settings = Mapping[str, Mapping[str, Any]]
Found = TypeVar("Found")


def is_evaluation(attempt: str) -> bool:
    """Whether a try scores evaluation languages.

    >>> is_evaluation("evaluation"), is_evaluation("evaluation_second_base"), is_evaluation("t19k")
    (True, True, False)
    """
    return attempt == EVALUATION or attempt.startswith(f"{EVALUATION}_")


class ProtocolError(ValueError):
    """A run that the protocol does not allow; the message says what to do."""


class Languages(ConfigSection):
    """Languages on which settings are chosen, and those that are scored once."""

    development: tuple[str, ...]
    evaluation: tuple[str, ...]


class Thinning(ConfigSection):
    """Bias simulation of the own rows."""

    p_low: float
    keep: float
    min_items: int
    """Of thinned subjects in each family; the first seed that leaves as many is taken, apart for each language."""


class MaterialSize(ConfigSection):
    """Numbers of rows, items and lines."""

    own_rows: int
    rows_of_other_languages: int
    thinning: Thinning
    thinned_items_per_family: int
    other_items_per_family: int
    text_lines: int
    guide_subjects: Literal["all", "families", "thinned"] = "all"
    """Guide prompts of all subjects, of those in the families alone, or of the thinned ones alone.

    Subjects outside the families have neither test items nor rows in the pool. With ``thinned``, users ask about what the own
    rows lack.
    """

    def record(self) -> dict[str, Any]:
        """The values without defaults that were added later, so that earlier measurements keep their hash."""
        return self.model_dump(exclude_defaults=True)


class EvidenceMethod(ConfigSection):
    """One method of the comparison: a method of the product, with settings of its own."""

    method: str | None
    select: Mapping[str, Any] = {}
    train: Mapping[str, Any] = {}


class Try(ConfigSection):
    """What a try changes: sections of a run, the models, the material, and which languages and parts of the order it takes."""

    languages: tuple[str, ...] | None = None
    """Some of the development or evaluation languages; None for all."""
    parts: int | None = None
    """The first parts of the order; None for all."""
    models: Mapping[str, str] = {}
    material: Mapping[str, Any] = {}
    embed: Mapping[str, Any] = {}
    cluster: Mapping[str, Any] = {}
    select: Mapping[str, Any] = {}
    train: Mapping[str, Any] = {}
    evaluate: Mapping[str, Any] = {}
    methods: Mapping[str, EvidenceMethod] = {}
    """Instead of those of the protocol with the same names."""

    @property
    def settings(self) -> Settings:
        """Changed settings of a run, by section."""
        sections = {name: getattr(self, name) for name in ("embed", "cluster", "select", "train", "evaluate")}
        return {name: values for name, values in sections.items() if values}


class OrderedPart(ConfigSection):
    """Methods and seeds that run before the next part does."""

    seeds: tuple[int, ...]
    methods: tuple[str, ...]


class EvidenceMeasure(ConfigSection):
    """One value for each item."""

    kind: Literal["primary", "secondary"]
    better: Literal["lower", "higher"]
    meaning: str

    @property
    def sign(self) -> int:
        """1 if more is better, else -1."""
        return 1 if self.better == "higher" else -1


class Controls(ConfigSection):
    """What must not change: the plain text, and other subjects within margins."""

    text: str
    no_harm: Mapping[str, float]


class Claims(ConfigSection):
    """The family of tests that are corrected together."""

    methods: tuple[str, ...]
    against: tuple[str, ...]
    correction: Literal["holm"]
    level: float


class Protocol(ConfigSection):
    """The contents of the file; see the comments there."""

    question: str
    models: Mapping[str, str]
    languages: Languages
    seeds: tuple[int, ...]
    families: Mapping[str, tuple[str, ...]]
    material: MaterialSize
    settings: Settings
    tries: Mapping[str, Try]
    learning_rates: tuple[float, ...]
    methods: Mapping[str, EvidenceMethod]
    pilot_methods: tuple[str, ...]
    quantile_methods: tuple[str, ...]
    order: tuple[OrderedPart, ...]
    measures: Mapping[str, EvidenceMeasure]
    controls: Controls
    claims: Claims
    tests: Mapping[str, str]
    exclusion: str
    go: str

    @property
    def targets(self) -> tuple[str, ...]:
        """All target languages."""
        return self.languages.development + self.languages.evaluation

    @property
    def primary(self) -> tuple[str, ...]:
        """Names of the primary measures."""
        return tuple(name for name, measure in self.measures.items() if measure.kind == "primary")

    def family_of(self, subject: str) -> str | None:
        """The family of a subject; None if it is of no family of the protocol."""
        first = subject.partition("_")[0]
        return next((name for name, parts in self.families.items() if first in parts), None)

    def settings_of(self, attempt: str, method: str) -> dict[str, dict[str, Any]]:
        """Settings of a run, by section: those of all, then of the try, then of the method.

        Raises:
            ProtocolError: the protocol has no such try or method.
        """
        own = self.method_of(attempt, method)
        parts: Sequence[Settings] = (self.settings, self.find_try(attempt).settings, {"select": own.select, "train": own.train})
        merged: dict[str, dict[str, Any]] = {}
        for part in parts:
            for section, values in part.items():
                merged[section] = merged.get(section, {}) | dict(values)
        return merged

    def material_of(self, attempt: str) -> MaterialSize:
        """The material of a try."""
        return MaterialSize.model_validate(self.material.model_dump() | dict(self.find_try(attempt).material))

    def models_of(self, attempt: str) -> Mapping[str, str]:
        """The models of a try."""
        return {**self.models, **self.find_try(attempt).models}

    def find_try(self, attempt: str) -> Try:
        """A try by its name.

        Raises:
            ProtocolError: the protocol has no such try.
        """
        return _find("try", attempt, self.tries)

    def method_of(self, attempt: str, name: str) -> EvidenceMethod:
        """A method of a try by its name.

        Raises:
            ProtocolError: the protocol has no such try or method.
        """
        return _find("method", name, {**self.methods, **self.find_try(attempt).methods})

    def languages_of(self, attempt: str) -> tuple[str, ...]:
        """Languages in which a try is scored: evaluation languages if its name says so, else development languages.

        Raises:
            ProtocolError: there is no such try, or it names other languages.
        """
        every = self.languages.evaluation if is_evaluation(attempt) else self.languages.development
        own = self.find_try(attempt).languages
        if own is not None and (unknown := [code for code in own if code not in every]):
            raise ProtocolError(f"the try {attempt!r} names {', '.join(unknown)}; it may name {', '.join(every)}")
        return every if own is None else own

    def order_of(self, attempt: str) -> tuple[OrderedPart, ...]:
        """Parts of the order that a try takes."""
        return self.order[: self.find_try(attempt).parts]

    def record_of(self, attempt: str, method: str) -> dict[str, Any]:
        """Everything of the protocol that a measurement of a method depends on, as JSON."""
        own = {
            "method": self.method_of(attempt, method).method,
            "material": self.material_of(attempt).record(),
            "models": dict(self.models_of(attempt)),
        }
        return json.loads(json.dumps(own | self.settings_of(attempt, method)))  # type: ignore[no-any-return]

    def hash_of(self, attempt: str, method: str) -> str:
        """Hash of ``record_of``."""
        return content_hash(json.dumps(self.record_of(attempt, method), sort_keys=True))


def _find(kind: str, name: str, known: Mapping[str, Found]) -> Found:
    if name not in known:
        raise ProtocolError(f"the protocol has no {kind} {name!r}; it has {', '.join(known)}")
    return known[name]


@dataclass(frozen=True)
class ProtocolFile:
    """The file of the protocol, and beside it the hash under which it was frozen, if it was."""

    path: Path = PROTOCOL

    @cached_property
    def protocol(self) -> Protocol:
        """The parsed file."""
        return Protocol.model_validate(yaml.safe_load(self.path.read_text("utf-8")))

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes, as ``sha256sum`` prints it."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def frozen_path(self) -> Path:
        """The file with the frozen hash."""
        return self.path.with_name(self.path.name + ".sha256")

    @property
    def frozen(self) -> str | None:
        """The frozen hash; None before freezing."""
        return self.frozen_path.read_text("utf-8").split()[0] if self.frozen_path.exists() else None

    def freeze(self) -> str:
        """Record the hash of the file as it is.

        Raises:
            ProtocolError: another hash was frozen before.
        """
        if self.frozen not in (None, self.sha256):
            raise ProtocolError(f"{self.path.name} was frozen as {self.frozen} and is now {self.sha256}; restore the frozen file")
        self.frozen_path.write_text(f"{self.sha256}  {self.path.name}\n", "utf-8")
        return self.sha256

    def check_frozen(self) -> None:
        """Refuse to score evaluation languages unless the file is the frozen one.

        Raises:
            ProtocolError: the file was not frozen, or it changed since.
        """
        if self.frozen is None:
            raise ProtocolError(f"{self.path.name} is not frozen; run `freeze` before evaluation languages are scored")
        if self.frozen != self.sha256:
            raise ProtocolError(
                f"{self.path.name} has the hash {self.sha256[:12]}, but was frozen as {self.frozen[:12]}; evaluation languages "
                f"are scored under the frozen protocol only, so restore it"
            )
