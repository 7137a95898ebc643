"""Adapters in one process: loads what is live, keeps what was, answers batches that mix them.

Key property: a version is loaded before it is offered, and one that cannot be loaded never displaces the
version that answers. Plain Python over an engine; one thread owns it, so nothing is loaded while a batch
runs. It knows no Ray and no HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.serving.backend import AdapterUnavailableError, Answer, BadOrderError, Order
from compass_ray.serving.registry import AdapterName, Catalogue

logger = logging.getLogger(__name__)

IDLE_SECONDS = 120.0
"""How long a version that is no longer live stays loaded after its last order."""
RETRY_SECONDS = 30.0
"""How long a version that could not be loaded is left alone."""


class Generator(Protocol):
    """A base model with adapters resident; see `models.engine`."""

    @property
    def names(self) -> Sequence[str]:
        """Adapters that are loaded."""
        ...

    def load(self, name: str, folder: Path) -> None:
        """Make an adapter resident; ValueError where it does not fit the base."""
        ...

    def unload(self, name: str) -> None:
        """Forget an adapter."""
        ...

    def answers(self, orders: Sequence[Order]) -> list[Answer]:
        """One reply to each order, adapters mixed."""
        ...

    def prompt_tokens(self, messages: Sequence[tuple[str, str]]) -> int:
        """Tokens that the conversation prefills; ValueError where the chat template refuses it."""
        ...


@dataclass(frozen=True)
class Problem:
    """Why a version cannot be loaded, and when that was found."""

    reason: str
    time: float


@dataclass(frozen=True)
class HostState:
    """What a host answers with, the adapters that cannot be loaded and why, and its batches and orders so far."""

    catalogue: Catalogue
    problems: Mapping[str, str]
    batches: int = 0
    orders: int = 0


class AdapterHost:
    """Keeps an engine's adapters in step with a run's live pointers."""

    def __init__(self, engine: Generator, run: RunDir, *, max_prompt_tokens: int, clock: Callable[[], float]) -> None:
        """Start with no adapter loaded; `follow` brings the live ones."""
        self.engine = engine
        self.run = run
        self.max_prompt_tokens = max_prompt_tokens
        self.clock = clock
        self.catalogue = Catalogue(live={}, versions={})
        self.problems: dict[str, Problem] = {}
        self.batches = self.orders = 0
        self._used: dict[str, float] = {}

    def follow(self, found: Catalogue) -> Catalogue:
        """Load what became live, drop what is idle.

        Returns:
            What can be answered with now: a language whose new version cannot be loaded keeps the one before.
        """
        live = {code: self._usable(code, version) for code, version in found.live.items()}
        usable = {code: version for code, version in live.items() if version is not None}
        self.catalogue = Catalogue(live=usable, versions=found.versions)
        self._drop_idle()
        return self.catalogue

    def generate(self, orders: Sequence[Order]) -> list[Answer | Exception]:
        """Answer orders together; an order that cannot be answered yields its exception instead."""
        outcomes: list[Answer | Exception | None] = [self._refusal(order) for order in orders]
        accepted = [order for order, refusal in zip(orders, outcomes, strict=True) if refusal is None]
        self.batches, self.orders = self.batches + 1, self.orders + len(orders)
        answers = iter(self.engine.answers(accepted) if accepted else [])
        return [next(answers) if outcome is None else outcome for outcome in outcomes]

    def state(self) -> HostState:
        """What can be answered with, what cannot, and how full the batches were."""
        problems = {name: problem.reason for name, problem in self.problems.items()}
        return HostState(self.catalogue, problems, self.batches, self.orders)

    def _usable(self, language: str, version: str) -> str | None:
        if self._loaded(AdapterName(language, version)):
            return version
        before = self.catalogue.live.get(language)
        return before if before and str(AdapterName(language, before)) in self.engine.names else None

    def _loaded(self, name: AdapterName) -> bool:
        try:
            self._ensure(name)
        except AdapterUnavailableError:
            return False
        return True

    def _refusal(self, order: Order) -> Exception | None:
        try:
            if order.adapter:
                self._ensure(AdapterName.parse(order.adapter))
            self._check_length(order)
        except (AdapterUnavailableError, BadOrderError) as error:
            return error
        return None

    def _check_length(self, order: Order) -> None:
        try:
            count = self.engine.prompt_tokens(order.messages)
        except ValueError as error:
            raise BadOrderError(str(error)) from None
        if count > self.max_prompt_tokens:
            raise BadOrderError(f"the conversation has {count} tokens, {self.max_prompt_tokens} are the most here; shorten it")

    def _ensure(self, name: AdapterName) -> None:
        text = str(name)
        if text not in self.engine.names:
            self._load(name)
        self._used[text] = self.clock()

    def _load(self, name: AdapterName) -> None:
        text, now = str(name), self.clock()
        problem = self.problems.get(text)
        if problem and now - problem.time < RETRY_SECONDS:
            raise AdapterUnavailableError(problem.reason)
        artifact = self.run.adapter(name.language, name.version)
        try:
            artifact.verify()
            with artifact.local() as folder:
                self.engine.load(text, folder)
        except (ArtifactError, ValueError, OSError) as error:
            reason = f"{name} cannot be loaded: {error}"
            logger.warning("%s", reason)
            self.problems[text] = Problem(reason, now)
            raise AdapterUnavailableError(reason) from None
        self.problems.pop(text, None)

    def _drop_idle(self) -> None:
        live = {str(AdapterName(code, version)) for code, version in self.catalogue.live.items()}
        oldest = self.clock() - IDLE_SECONDS
        for name in list(self.engine.names):
            if name not in live and self._used.get(name, 0.0) < oldest:
                self.engine.unload(name)
                self._used.pop(name, None)
