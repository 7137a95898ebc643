"""Settings of a simulation with training: update variants, seeds, and the share of new subjects.

A variant is a strategy plus its changes to the run's ``update`` settings. A variant that occurs both in a sweep and in the
comparison of strategies is equal and trained once. COMPASS, section 5.5 and appendices D.3 and D.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.continual.strategies import STRATEGIES

BUFFERS = (0.0, 0.01, 0.05, 0.1, 0.2, 1.0)
"""Shares of the training rows of COMPASS, appendix D.3, table 12. The last one is from the text."""
LAMBDAS = (0.1, 1.0, 2.0, 10.0, 100.0, 1000.0)
BETAS = (0.001, 0.01, 0.1, 0.5)
"""Values of COMPASS, appendix D.4."""

Value = float | str
"""Value of a setting that a variant changes."""
_ANY = RunConfig(languages=("sw",))
"""Checks the settings of a variant."""

REQUIRED_STRATEGIES = ("static", "naive", "ecda")
"""Every strategy is compared with these: no update, plain fine-tuning, and the paper's method."""


@dataclass(frozen=True)
class UpdateVariant:
    """A strategy and its changes to the settings in ``update``."""

    strategy: str
    changes: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def with_settings(cls, config: RunConfig, strategy: str, **settings: Value) -> UpdateVariant:
        """A variant with the settings that differ from the configuration."""
        return cls(strategy, tuple((name, value) for name, value in settings.items() if getattr(config.update, name) != value))

    @classmethod
    def parse(cls, text: str, strategy: str = "ecda") -> UpdateVariant:
        """A variant from settings in ``update``, separated by commas.

        Raises:
            ConfigError: an unknown setting, or an invalid value.

        >>> UpdateVariant.parse("replay=drawn,beta=1").name
        'ecda-replay-drawn-beta-1'
        """
        pairs = [[part.strip() for part in each.partition("=")] for each in text.split(",")]
        checked = with_overrides(_ANY, [f"update.{key}={value}" for key, _, value in pairs]).update
        changes = [(name, getattr(checked, name)) for name in (checked.present_name(key) for key, _, _ in pairs)]
        for name, value in changes:
            if name == "strategy" or not isinstance(value, (float, int, str)):
                raise ConfigError(f"update.{name}={value} is no variant of {strategy}; vary numbers and choices of update")
        return cls(strategy, tuple(changes))

    @property
    def name(self) -> str:
        """The folder name of the variant.

        >>> UpdateVariant("ecda", (("ewc_lambda", 10.0), ("beta", 0.5))).name
        'ecda-ewc_lambda-10-beta-0.5'
        """
        return "-".join([self.strategy, *(f"{name}-{_text(value)}" for name, value in self.changes)])

    def apply_to(self, config: RunConfig, seed: int) -> RunConfig:
        """The configuration of the run with this variant and a seed."""
        changed = config.update.model_copy(update={"strategy": self.strategy, **dict(self.changes)})
        return config.model_copy(update={"update": changed, "seed": seed})


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


@dataclass(frozen=True)
class ForgettingSettings:
    """Settings of a simulation with training. The sweeps vary ECDA and make one update."""

    seeds: int = 1
    """Number of seeds of selections, windows and trainings; they start at 0."""
    fresh_share: float = 1.0
    """Fraction of the prompts of a window that are about its new subjects. Default: all, as in the paper."""
    strategies: Sequence[str] = tuple(STRATEGIES)
    variants: Sequence[UpdateVariant] = ()
    """Further variants that are compared with the strategies."""
    buffers: Sequence[float] = ()
    lambdas: Sequence[float] = ()
    betas: Sequence[float] = ()
    scenario: str | None = None
    """`paper`, `atlas`, `families` or `drawn`; default: the first that the subjects support."""

    def validate(self) -> None:
        """Check that the simulation can give a result.

        Raises:
            ConfigError: names the invalid setting.
        """
        if self.seeds < 1:
            raise ConfigError(f"{self.seeds} seeds are set; give 1 or more")
        if not 0.0 < self.fresh_share <= 1.0:
            raise ConfigError(f"the share of new subjects is {self.fresh_share:g}; give a number above 0 and at most 1")
        if unknown := [name for name in self.strategies if name not in STRATEGIES]:
            raise ConfigError(f"unknown strategy {unknown[0]!r}; choose some of {', '.join(STRATEGIES)}")
        if missing := [name for name in REQUIRED_STRATEGIES if name not in self.strategies]:
            raise ConfigError(f"every strategy is compared with {', '.join(REQUIRED_STRATEGIES)}; add {', '.join(missing)}")

    def strategy_variants(self) -> list[UpdateVariant]:
        """The strategies as configured, and the further variants; they make every update."""
        return [*(UpdateVariant(name) for name in self.strategies), *self.variants]

    def buffer_variants(self, config: RunConfig) -> dict[float, UpdateVariant]:
        """ECDA by the share of anchors. Share 0 keeps the configured anchors for the elastic weights but sets ``beta`` to 0."""
        return {
            share: UpdateVariant.with_settings(config, "ecda", **({"anchors": share} if share else {"beta": 0.0}))
            for share in self.buffers
        }

    def sweep_variants(self, config: RunConfig) -> dict[tuple[float, float], UpdateVariant]:
        """ECDA by lambda and beta."""
        return {
            (ewc_lambda, beta): UpdateVariant.with_settings(config, "ecda", ewc_lambda=ewc_lambda, beta=beta)
            for ewc_lambda in self.lambdas
            for beta in self.betas
        }

    def update_counts(self, config: RunConfig, periods: int) -> dict[UpdateVariant, int]:
        """Number of updates of each variant, for a number of periods."""
        once = [*self.buffer_variants(config).values(), *self.sweep_variants(config).values()]
        return dict.fromkeys(once, 1) | dict.fromkeys(self.strategy_variants(), periods - 1)

    def as_json(self) -> dict[str, Any]:
        """The settings by name."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
