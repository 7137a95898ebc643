"""The situation of a language as it is found: in the run directory, and with the monitor.

Key property: it reads what is not known to stay as it is, and that only where it can matter: of a language that is asked what it
always was, the live pointer. It decides and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from compass_ray.artifacts import FIRST_VERSION, RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.continual import lineage
from compass_ray.continual.keeping.questions import Question, questions
from compass_ray.continual.keeping.situation import Failed, Judged, Offered, Situation
from compass_ray.continual.update import offered_window
from compass_ray.core.drift import Signals
from compass_ray.serving import registry
from compass_ray.serving.monitoring.observations import WindowReady
from compass_ray.serving.registry import Live


class Replies(Protocol):
    """Who knows how replies were; see `monitor_actor.MonitorClient`."""

    def signals(self, language: str) -> Mapping[str, Signals]:
        """How the last replies of each version were."""
        ...


@dataclass(frozen=True)
class Attempts:
    """Of the updates of one language: whether one is under way, and what failed before."""

    updating: bool = False
    failed: Failed = field(default_factory=Failed)


@dataclass
class Looking:
    """Finds out; what never changes once it is there is read once, and the rest once a turn."""

    run: RunDir
    config: RunConfig
    replies: Replies
    _whole: Mapping[str, Sequence[str]] | None = None
    _decisions: Sequence[Mapping[str, Any]] | None = None
    _judged: dict[tuple[str, str], Judged] = field(default_factory=dict)
    _offered: dict[str, Offered] = field(default_factory=dict)
    _questions: dict[str, tuple[Question, ...]] = field(default_factory=dict)

    def anew(self) -> None:
        """A turn begins."""
        self._whole = self._decisions = None

    def look(self, language: str, told: Mapping[str, Any], ready: WindowReady | None, attempts: Attempts) -> Situation:
        """The situation, given what the monitor says of the language and of its window.

        Raises:
            ArtifactError: the live pointer or a verdict is damaged, or a store is out of reach.
        """
        live = registry.look(self.run, language).live or Live(version="")
        before = live.history[-1].version if live.history else None
        canary = live.canary.version if live.canary else None
        seen = Situation(
            language=language,
            prompts=int(told["prompts"]),
            live=live.version or None,
            before=before,
            canary=canary,
            pinned=live.pinned is not None,
            offered=self.offer(ready) if ready else None,
            updating=attempts.updating,
            failed=attempts.failed,
            moved=bool((told.get("last_check") or {}).get("drifted")),
            judged=self._verdicts(language),
            questions=len(self.questions(language)),
        )
        return self._closer(seen) if ready or canary or seen.judgement(live.version) else seen

    def questions(self, language: str) -> tuple[Question, ...]:
        """The canary questions of a language."""
        if language not in self._questions:
            self._questions[language] = questions(self.config, self.run, language)
        return self._questions[language]

    def offer(self, ready: WindowReady) -> Offered:
        """The name of the window's update, or why it can have none."""
        if ready.file not in self._offered:
            self._offered[ready.file] = _offered(self.run, ready)
        return self._offered[ready.file]

    def _closer(self, seen: Situation) -> Situation:
        if self._decisions is None:
            self._decisions = registry.decisions(self.run)
        return replace(
            seen,
            unfinished=_unfinished(self.run, seen.language) if seen.offered else None,
            recorded=recorded(self._decisions, seen.language),
            dropped=dropped(self._decisions, seen.language),
            signals=self.replies.signals(seen.language),
        )

    def _verdicts(self, language: str) -> tuple[Judged, ...]:
        if self._whole is None:
            self._whole = self.run.whole_adapters()
        versions = self._whole.get(language, ())
        found = [self._verdict(language, version) for version in versions if version != FIRST_VERSION]
        return tuple(each for each in found if each)

    def _verdict(self, language: str, version: str) -> Judged | None:
        known = self._judged.get((language, version))
        if known:
            return known
        judged = self.run.update(language, version)
        manifest = judged.manifest()
        if manifest is None:
            return None
        gate = judged.read_json("gate.json")
        found = Judged(version, str(manifest.config.get("window")), str(gate["from"]), bool(gate["accepted"]))
        self._judged[language, version] = found
        return found


def dropped(decisions: Iterable[Mapping[str, Any]], language: str) -> frozenset[str]:
    """Versions of a language that were ever taken off traffic: rolled back, or as a canary.

    >>> took = [{"kind": "rollback", "language": "sw", "from": "v0003", "to": "v0002"}]
    >>> sorted(dropped([*took, {"kind": "canary ended", "language": "sw", "from": "v0002", "to": "v0004"}], "sw"))
    ['v0003', 'v0004']
    """
    off = {"rollback": "from", "canary ended": "to"}
    own = [each for each in decisions if each.get("language") == language and each.get("kind") in off]
    return frozenset(str(each[off[each["kind"]]]) for each in own)


def recorded(decisions: Iterable[Mapping[str, Any]], language: str) -> frozenset[str]:
    """Versions of a language whose verdict is on record."""
    about = {"kind": "gate", "language": language}
    return frozenset(str(each["to"]) for each in decisions if about.items() <= each.items())


def _offered(run: RunDir, ready: WindowReady) -> Offered:
    try:
        return Offered(offered_window(run, ready).name)
    except ConfigError as error:
        return Offered(None, str(error))


def _unfinished(run: RunDir, language: str) -> str | None:
    selected = run.selection(lineage.version_after(run, language), language).manifest()
    return None if selected is None else selected.config.get("window")
