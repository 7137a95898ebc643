"""What training minimises besides the loss of its own rows.

An objective adds a term to each step; the plain one adds nothing. It sees the step through `Step`, never the trainer.
Where several workers train together, what counts is the mean of their terms, so each has its own part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from compass_ray.models.chat import EncodedExample


@dataclass(frozen=True)
class LossInputs:
    """One optimiser step, as an objective sees it."""

    rng: np.random.Generator
    """Seeded by run seed and step number, so that a resumed run draws the same."""
    parameters: Mapping[str, nn.Parameter]
    mean_loss: Callable[[Sequence[EncodedExample]], Tensor]
    """Weighted mean loss a token of some rows, with gradient. Where several workers train together, each gets a value of
    its own, whose mean over them it is: a term must be linear in it."""


class Objective(Protocol):
    """A term added to the loss of every step."""

    def term(self, step: LossInputs) -> Tensor | None:
        """The term, with gradient, or None for nothing."""


class TaskObjective:
    """The loss of the training rows alone."""

    def term(self, step: LossInputs) -> Tensor | None:
        """Nothing."""
        return None
