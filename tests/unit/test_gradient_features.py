"""Gradients of the benchmark on LESS, compared with the loss of transformers, with torch's Adam and with exact products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.paper import gradient_features
from benchmarks.paper.gradient_features import BETAS, EPSILON, GradientFeatures
from benchmarks.paper.kit_sample import KitSample, Texts
from compass_ray.models.chat_template import TrainingRow
from compass_ray.models.model_resolver import resolve_model

slow = pytest.mark.slow
ROWS = [TrainingRow("Mji mkuu wa Kenya ni upi?", "Nairobi"), TrainingRow("What is the capital of Uganda?", "Kampala")]


@pytest.fixture(scope="module")
def features() -> GradientFeatures:
    return GradientFeatures(resolve_model("atlas", "base_model"), ROWS)


@slow
def test_a_gradient_is_that_of_the_loss_of_transformers(features: GradientFeatures) -> None:
    found, [example] = features._gradient(ROWS[0]), features._encode(ROWS[:1])
    features.model.zero_grad()
    torch.autograd.backward(
        features.model(input_ids=torch.tensor([example.input_ids]), labels=torch.tensor([example.labels])).loss
    )
    expected = torch.cat([each.grad.flatten() for each in features.factors])
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.9999
    assert float(found.norm()) == pytest.approx(float(expected.norm()), rel=1e-3)


@slow
def test_a_training_row_has_the_direction_of_adam_s_next_step(features: GradientFeatures) -> None:
    gradient, parameter = features._gradient(ROWS[1]), torch.zeros_like(features.mean, requires_grad=True)
    adam = torch.optim.Adam([parameter], 1.0, BETAS, EPSILON)
    adam.state[parameter] = {
        "step": torch.tensor(float(len(ROWS))),
        "exp_avg": features.mean.clone(),
        "exp_avg_sq": features.square.clone(),
    }
    parameter.grad = gradient
    adam.step()
    np.testing.assert_allclose(features.of_training_row(ROWS[1]), features._project(-parameter.detach()), atol=1e-4)


@slow
def test_the_projection_keeps_inner_products(features: GradientFeatures) -> None:
    rows = torch.randn(20, len(features.mean), generator=torch.Generator().manual_seed(0))
    projected = np.stack([features._project(row) for row in rows])
    exact, found = (rows @ rows.T).numpy(), projected @ projected.T
    np.testing.assert_allclose(found / exact.max(), exact / exact.max(), atol=0.1)


class CountedFeatures:
    """Random features in place of gradients, with a count of the rows that they were computed for."""

    computed = 0

    def __init__(self, folder: str, warmup: list[TrainingRow]) -> None:
        pass

    def of_training_row(self, row: TrainingRow) -> np.ndarray:
        type(self).computed += 1
        return np.random.default_rng(list(row.prompt.encode())).random(4, np.float32)

    of_guide_prompt = of_training_row


def test_the_cache_repeats_no_gradient_and_serves_no_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_features, "GradientFeatures", CountedFeatures)

    def sample(language: str) -> KitSample:
        prompts = tuple(f"{language} {i}" for i in range(3))
        texts = Texts(prompts, (language,) * 3, ("",) * 3, ("",) * 3, ("",) * 3, prompts)
        return KitSample(texts, texts)

    def compute(language: str, cache: Path | None) -> tuple[np.ndarray, np.ndarray]:
        found = gradient_features.gradient_data(sample(language), "a/model", 1, cache)
        return found.pool, found.guides

    for language in ("sw", "sw", "hi"):
        np.testing.assert_array_equal(compute(language, tmp_path), compute(language, None))
    assert CountedFeatures.computed == 2 * 6 + 3 * 6
