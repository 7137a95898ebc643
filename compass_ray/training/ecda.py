"""The ECDA loss, which limits forgetting in an updated adapter (COMPASS, section 3.3 and appendix D).

    loss = task(D_new) + beta * loss(anchors) + (lambda / 2) sum_j F_j (theta_j - theta_j_prev)^2

F is the diagonal of the Fisher information of the previous adapter (`training.fisher`). lambda = 0 is rehearsal, beta = 0 is
elastic weight consolidation, and both 0 is naive training. `core.anchors` chooses the anchors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compass_ray.adapters.dora import check_fit
from compass_ray.models.chat_template import EncodedExample


@dataclass(frozen=True)
class EcdaObjective:
    """Anchors and elastic weight consolidation around a previous adapter."""

    beta: float
    ewc_lambda: float
    anchors: Sequence[EncodedExample]
    fisher: Mapping[str, Tensor]
    previous: Mapping[str, Tensor]
    batch_size: int = 16
    """Anchors drawn per step, without replacement within a step."""

    def draw_replay(self, rng: np.random.Generator) -> tuple[Sequence[EncodedExample], float]:
        """Anchors of this step, and beta."""
        if self.beta == 0 or not self.anchors:
            return (), 0.0
        drawn = rng.choice(len(self.anchors), min(self.batch_size, len(self.anchors)), replace=False)
        return [self.anchors[i] for i in drawn], self.beta

    def penalty(self, parameters: Mapping[str, nn.Parameter]) -> Tensor | None:
        """The EWC penalty, or None if it is off."""
        if self.ewc_lambda == 0 or not self.fisher:
            return None
        return ewc_penalty(parameters, self.fisher, self.previous, self.ewc_lambda)


def ewc_penalty(
    parameters: Mapping[str, nn.Parameter],
    fisher: Mapping[str, Tensor],
    previous: Mapping[str, Tensor],
    ewc_lambda: float,
) -> Tensor:
    """(lambda / 2) sum_j F_j (theta_j - theta_j_prev)^2 as a scalar with gradient (COMPASS, appendix D).

    Raises:
        ModelError: the Fisher information or the previous parameters belong to another adapter.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    check_fit(shapes, fisher)
    check_fit(shapes, previous)
    parts = [(fisher[name].to(p.device) * (p - previous[name].to(p.device)).square()).sum() for name, p in parameters.items()]
    return 0.5 * ewc_lambda * torch.stack(parts).sum()
