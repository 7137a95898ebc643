"""What a simulation that trains found: the plane of learning and forgetting, and ECDA's sweeps.

Key property: every number is a function of the answers that lie in the run. Differences are paired over items: from the version
that stays as it was (`static`), and from the one that just learns (`naive`). COMPASS, figure 6, table 12 and appendix D.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.simulation.learning.course import scenario_of
from compass_ray.continual.simulation.learning.gathering import Asked, Pair, accuracy, count, difference, gather
from compass_ray.continual.simulation.learning.plan import LearningPlan, Way
from compass_ray.continual.simulation.scenarios import Period

TABLE = ("strategy", "old subjects", "new subjects", "less naive, old", "less naive, new", "passed the gate", "s an update")
"""Accuracy after an update, differences from naive in points with their 95% intervals, and CPU seconds."""


@dataclass(frozen=True)
class Strategy:
    """One strategy over all updates, seeds and languages."""

    accuracy: Pair
    over_static: Pair
    over_naive: Pair
    nats_over_naive: Pair
    """The same of the log-probability of the right option."""
    ecda_over: Pair
    """ECDA's accuracy less this one's."""
    by_update: Mapping[str, tuple[float, float]]
    """Accuracy on old and on new subjects by period."""
    by_line: Mapping[str, tuple[float, float]]
    """The same by language and seed."""
    accepted: float
    """Share of its updates that the gate lets pass."""
    rows: float
    """That a version was selected from, in the mean."""
    cpu_seconds: float
    """Of an update, in the mean."""


@dataclass(frozen=True)
class Change:
    """From the first version to the one after its first update: in accuracy, and in log-probability of the right option."""

    accuracy: Pair
    nats: Pair


@dataclass(frozen=True)
class Findings:
    """Strategies by name; ECDA's change from static by the share of its anchors, and by lambda and beta."""

    languages: tuple[str, ...]
    periods: tuple[Period, ...]
    items: Mapping[str, int]
    strategies: Mapping[str, Strategy]
    buffers: Mapping[float, Change]
    naive_once: Change | None
    """Naive's, to read the sweeps by."""
    swept: Mapping[tuple[float, float], Change]

    def table(self) -> list[list[str]]:
        """Cells in the order of `TABLE`."""
        return [_cells(name, each) for name, each in self.strategies.items()]

    def as_json(self) -> dict[str, Any]:
        """Everything by name, for a record."""
        shown = {name: asdict(each) for name, each in self.strategies.items()}
        sweep: dict[str, dict[str, Any]] = {}
        for (one, two), change in self.swept.items():
            sweep.setdefault(f"lambda_{one:g}", {})[f"beta_{two:g}"] = asdict(change)
        return {
            "languages": list(self.languages),
            "periods": {each.name: list(each.fresh or each.usual) for each in self.periods},
            "items": dict(self.items),
            "strategies": shown,
            "after_first_update": {
                "naive": asdict(self.naive_once) if self.naive_once else {},
                "anchors": {f"{share:g}": asdict(change) for share, change in self.buffers.items()},
                "sweep": sweep,
            },
        }


def find(config: RunConfig, run: RunDir, plan: LearningPlan) -> Findings:
    """Read and compare every version's answers.

    Raises:
        ArtifactError: some have not been made.
    """
    periods = scenario_of(run, plan, config.languages[0], 0).periods()[:-1]

    def asked(way: Way, updates: int) -> list[Asked]:
        pairs = [(code, seed) for code in config.languages for seed in range(plan.seeds)]
        return [each for code, seed in pairs for each in gather(run, plan, way, code, seed, updates)]

    found = {way.strategy: asked(way, len(periods) - 1) for way in plan.compared()}
    once = asked(Way("static"), 1)

    def change(way: Way) -> Change:
        after = asked(way, 1)
        return Change(difference(after, once), difference(after, once, "nats"))

    sweeps = bool(plan.buffers or (plan.lambdas and plan.betas))
    return Findings(
        languages=config.languages,
        periods=periods,
        items=count(found["static"]),
        strategies={name: _strategy(each, found) for name, each in found.items()},
        buffers={share: change(way) for share, way in plan.buffered(config).items()},
        naive_once=change(Way("naive")) if sweeps else None,
        swept={pair: change(way) for pair, way in plan.swept(config).items()},
    )


def _strategy(asked: Sequence[Asked], among: Mapping[str, Sequence[Asked]]) -> Strategy:
    return Strategy(
        accuracy=accuracy(asked),
        over_static=difference(asked, among["static"]),
        over_naive=difference(asked, among["naive"]),
        nats_over_naive=difference(asked, among["naive"], "nats"),
        ecda_over=difference(among["ecda"], asked),
        by_update=_by(asked, lambda each: f"T{each.update}"),
        by_line=_by(asked, lambda each: f"{each.language}/{each.seed}"),
        accepted=_mean(asked, "accepted"),
        rows=_mean(asked, "rows"),
        cpu_seconds=_mean(asked, "cpu_seconds"),
    )


def _by(asked: Sequence[Asked], name: Callable[[Asked], str]) -> dict[str, tuple[float, float]]:
    """Accuracy on old and on new subjects of each part that has a name of its own."""
    pairs = {part: accuracy([each for each in asked if name(each) == part]) for part in dict.fromkeys(map(name, asked))}
    return {part: (pair.old.mean, pair.new.mean) for part, pair in pairs.items()}


def _mean(asked: Sequence[Asked], name: str) -> float:
    return float(np.mean([each.metrics.get(name, 0.0) for each in asked]))


def _cells(name: str, found: Strategy) -> list[str]:
    accuracies = [f"{100 * i.mean:.1f}%" for i in (found.accuracy.old, found.accuracy.new)]
    pair = (found.over_naive.old, found.over_naive.new)
    differences = [f"{100 * i.mean:+.1f} [{100 * i.low:+.1f}, {100 * i.high:+.1f}]" for i in pair]
    return [name, *accuracies, *differences, f"{found.accepted:.0%}", f"{found.cpu_seconds:.1f}"]
