"""What a vocabulary of 262,144 tokens needs in a process of limited memory: scoring, training and the check of an export."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_LIMITED = """
import resource, sys, tempfile
from pathlib import Path
import torch
from compass_ray.adapters.dora import attach_for_inference, attach_for_training
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.export import parity
from compass_ray.models.base_model import freeze
from compass_ray.models.chat_template import TrainingRow, encode_rows
from compass_ray.models.scorer import score_items
from compass_ray.models.text_scorer import score_text
from compass_ray.training.adapter_trainer import AdapterTrainer
from compass_ray.training.collate import collate
from compass_ray.training.fisher import diagonal_fisher
from tests.unit.random_adapters import random_adapter
from tests.unit.tiny_models import make_model, make_tokenizer

torch.set_num_threads(1)
model = make_model("llama", 262_144, hidden=8, layers=1)
base = freeze(model, make_tokenizer(), torch.device("cpu"), "tiny")
rows = [TrainingRow("Which?", f"{i % 10} 0 1 2 3") for i in range(128)]
examples = encode_rows(base.tokenizer, rows, 64)
stored = read_adapter(random_adapter(base, Path(tempfile.mkdtemp()), AdapterConfig(r=4, alpha=8), seed=1))
parity.PROBES = ("0 1 2 3 4 5 6 7 8 9 " * 40,)
base.model(torch.tensor([[1, 2]]))  # what torch allocates once


def limit(added):
    used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + added, resource.RLIM_INFINITY))


limit(1_100_000_000)

try:
    batch = collate(examples, 0, base.device)
    base.model(batch.input_ids).logits.flatten(0, 1)[batch.positions].log_softmax(-1)
except RuntimeError as error:
    assert "allocate" in str(error), error
else:
    sys.exit("the limit is too high: all logits fit")
questions = [("Which?", [f"{i % 10} 0 1 2 {j}" for j in range(4)]) for i in range(32)]
scores = score_items(base, *zip(*questions), scoring="option", batch_size=32, max_tokens=64)
assert scores.shape == (32, 4)
text = score_text(base, ["0 1 2 3 4 5 6 7 8 9"] * 100, max_tokens=256, batch_tokens=4096)
assert text.tokens * 262_144 * 4 > 1_100_000_000, text.tokens
config = TrainConfig(epochs=1, batch_size=128, max_tokens=64, holdout=0.0)
with AdapterTrainer(base, rows, [], None, config, seed=0) as trainer:
    result = trainer.run()
limit(700_000_000)  # 256 positions need 268 MB for each copy of all logits
long = encode_rows(base.tokenizer, [TrainingRow("Which?", "0 1 2 3 4 5 6 7 8 9 " * 40)], 256)
with attach_for_training(base.model, stored):
    fisher = diagonal_fisher(base.model, long)
assert any(float(values.max()) > 0 for values in fisher.values())
expected = parity.compute_expected(base, stored, "float32")
with attach_for_inference(base.model, stored):
    found = parity.compare_logits(expected, base.model, base.device)
assert found.effect > found.tolerance > found.difference
print("positions", len(batch.positions), "loss", result.history[-1].train_loss)
"""


@pytest.mark.slow  # ten seconds of a processor
@pytest.mark.skipif(sys.platform != "linux", reason="the limit on data memory is Linux's")
def test_scoring_and_training_stay_below_a_limit_that_all_logits_exceed() -> None:
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run([sys.executable, "-c", _LIMITED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "loss" in done.stdout
