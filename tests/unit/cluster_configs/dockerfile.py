"""A parser for the stages and steps of our Dockerfile: no heredocs, no escapes except at line ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_STEP = re.compile(r"^([A-Z]+)\s+(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One instruction, such as ``RUN`` or ``COPY``, and its arguments."""

    word: str
    rest: str


@dataclass(frozen=True)
class Stage:
    """One stage, started by ``FROM``."""

    name: str
    base: str
    steps: tuple[Step, ...]


def read(path: Path) -> dict[str, Stage]:
    """The stages of a file, by name."""
    stages: list[tuple[str, str, list[Step]]] = []
    for step in _steps(path.read_text("utf-8")):
        if step.word == "FROM":
            base, _, name = step.rest.partition(" AS ")
            stages.append((name, base, []))
        else:
            stages[-1][2].append(step)
    return {name: Stage(name, base, tuple(steps)) for name, base, steps in stages}


def chain(stages: dict[str, Stage], target: str) -> list[Stage]:
    """A stage and its base stages, in build order."""
    found = [stages[target]]
    while found[0].base in stages:
        found.insert(0, stages[found[0].base])
    return found


def _steps(text: str) -> list[Step]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Step(*match.groups()) for line in joined.splitlines() if (match := _STEP.match(line.strip()))]
