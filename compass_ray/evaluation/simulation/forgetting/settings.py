"""What is tried: which ways to update, by how many seeds, for which share of new subjects.

Key property: a way is a strategy and what it changes of the run's settings of updates, so a way that is asked for twice, by
a sweep and by the comparison of strategies, is one and is trained once. COMPASS, section 5.5 and appendices D.3 and D.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compass_ray.config import ConfigError, RunConfig
from compass_ray.continual.strategies import STRATEGIES

BUFFERS = (0.0, 0.01, 0.05, 0.1, 0.2, 1.0)
"""Of COMPASS, appendix D.3, table 12: shares of the rows trained on; the text adds the last."""
LAMBDAS = (0.1, 1.0, 2.0, 10.0, 100.0, 1000.0)
BETAS = (0.001, 0.01, 0.1, 0.5)
"""Of COMPASS, appendix D.4."""


REQUIRED_STRATEGIES = ("static", "naive", "ecda")
"""What every strategy is compared with: to change nothing, just to learn, and the paper's own."""


@dataclass(frozen=True)
class UpdateVariant:
    """A strategy, and what it changes of the settings in ``update``."""

    strategy: str
    changes: tuple[tuple[str, float], ...] = ()

    @classmethod
    def with_settings(cls, config: RunConfig, strategy: str, **settings: float) -> UpdateVariant:
        """A way without the changes that are none."""
        return cls(strategy, tuple((name, value) for name, value in settings.items() if getattr(config.update, name) != value))

    @property
    def name(self) -> str:
        """A name for a folder.

        >>> UpdateVariant("ecda", (("ewc_lambda", 10.0), ("beta", 0.5))).name
        'ecda-ewc_lambda-10-beta-0.5'
        """
        return "-".join([self.strategy, *(f"{name}-{value:g}" for name, value in self.changes)])

    def apply_to(self, config: RunConfig, seed: int) -> RunConfig:
        """The run's configuration under this way and a seed."""
        changed = config.update.model_copy(update={"strategy": self.strategy, **dict(self.changes)})
        return config.model_copy(update={"update": changed, "seed": seed})


@dataclass(frozen=True)
class ForgettingSettings:
    """Settings of a simulation that trains; the sweeps are of ECDA, over the first update."""

    seeds: int = 1
    """Of selections, windows and trainings, from 0."""
    fresh_share: float = 1.0
    """Of a window's prompts, how many are about the subjects that came with it; all of them, as in the paper."""
    strategies: Sequence[str] = tuple(STRATEGIES)
    buffers: Sequence[float] = ()
    lambdas: Sequence[float] = ()
    betas: Sequence[float] = ()
    scenario: str | None = None
    """`paper`, `atlas`, `families` or `drawn`; the one that fits the subjects when unset."""

    def validate(self) -> None:
        """Stop where nothing could be found out.

        Raises:
            ConfigError: says which setting is in the way.
        """
        if self.seeds < 1:
            raise ConfigError(f"{self.seeds} seeds were asked for; give 1 or more")
        if not 0.0 < self.fresh_share <= 1.0:
            raise ConfigError(f"the share of new subjects is {self.fresh_share:g}; give more than 0, and at most 1")
        if unknown := [name for name in self.strategies if name not in STRATEGIES]:
            raise ConfigError(f"there is no strategy {unknown[0]!r}; choose some of {', '.join(STRATEGIES)}")
        if missing := [name for name in REQUIRED_STRATEGIES if name not in self.strategies]:
            raise ConfigError(
                f"every strategy is compared with {', '.join(REQUIRED_STRATEGIES)}; name {', '.join(missing)} as well"
            )

    def strategy_variants(self) -> list[UpdateVariant]:
        """The strategies as configured, which make every update."""
        return [UpdateVariant(name) for name in self.strategies]

    def buffer_variants(self, config: RunConfig) -> dict[float, UpdateVariant]:
        """ECDA by the share of its anchors; without any its elastic weights are left, on the anchors as configured."""
        return {
            share: UpdateVariant.with_settings(config, "ecda", **({"anchors": share} if share else {"beta": 0.0}))
            for share in self.buffers
        }

    def sweep_variants(self, config: RunConfig) -> dict[tuple[float, float], UpdateVariant]:
        """ECDA by lambda and beta."""
        return {
            (one, two): UpdateVariant.with_settings(config, "ecda", ewc_lambda=one, beta=two)
            for one in self.lambdas
            for two in self.betas
        }

    def update_counts(self, config: RunConfig, periods: int) -> dict[UpdateVariant, int]:
        """How many updates each way makes where there are so many periods."""
        once = [*self.buffer_variants(config).values(), *self.sweep_variants(config).values()]
        return dict.fromkeys(once, 1) | dict.fromkeys(self.strategy_variants(), periods - 1)

    def as_json(self) -> dict[str, Any]:
        """The settings by name."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
