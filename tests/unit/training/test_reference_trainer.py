"""Our trainer beside an independent one: PEFT's DoRA in the Trainer of transformers, on the same rows in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.paper.trainer_curves import initial_adapter, summarize, train_ours, train_reference
from compass_ray.config import TrainConfig
from compass_ray.models.base_model import load_base
from compass_ray.training.adapter_trainer import TrainingRow

STEPS, BATCH = 20, 2
ROWS = [
    *(TrainingRow(f"Mji mkuu wa nchi {i}?", f"Mji {i} wa {i % 7}") for i in range(0, STEPS * BATCH, 2)),
    *(TrainingRow(f"{i} = ?", f"उत्तर {i * 3}") for i in range(1, STEPS * BATCH, 2)),
]
HELD_OUT = [TrainingRow("Mji mkuu wa nchi 99?", "Mji 99 wa 1"), TrainingRow("98 = ?", "उत्तर 294")]


REAL = [pytest.mark.real_models, pytest.mark.slow, pytest.mark.timeout(900)]


# Float32 losses of Gemma differed by 7e-5 of their size after six steps, and adapters by 2e-5.
@pytest.mark.parametrize(("name", "rtol"), [("atlas", 1e-4), pytest.param("gemma-3-270m", 1e-3, marks=REAL)])
def test_every_step_has_the_loss_of_peft_and_the_trainer_of_transformers(
    name: str, rtol: float, request: pytest.FixtureRequest
) -> None:
    model = name if name == "atlas" else str(request.getfixturevalue("real_models") / name)
    config = TrainConfig(base_model=model, learning_rate=3e-4, epochs=1, batch_size=BATCH, max_tokens=24, warmup_ratio=0.2)
    base = load_base(config)
    reference = train_reference(ROWS, HELD_OUT, config, initial_adapter(base, ROWS, config))
    found: dict[str, Any] = dict(summarize(train_ours(base, ROWS, HELD_OUT, config), reference))
    assert found["steps"] == STEPS
    np.testing.assert_allclose(found["ours_step_loss"], found["reference_step_loss"], rtol=rtol)
    np.testing.assert_allclose(found["ours_held_out_loss"], found["reference_held_out_loss"], rtol=rtol)
    np.testing.assert_allclose(found["zero_shot_held_out_loss"], found["reference_zero_shot_held_out_loss"], rtol=rtol)
    assert found["ours_held_out_loss"] < found["zero_shot_held_out_loss"]
    assert found["adapter_relative_difference"] < 1e-2
