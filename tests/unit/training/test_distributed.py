"""Several processes on one adapter: the adapter of one process, equal on all of them, and no waiting for one that failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.artifacts import RunDir
from compass_ray.models.errors import ModelError
from compass_ray.training.distributed import ProcessGroup, SingleProcess, current_group
from tests.unit.training import process_group_program
from tests.unit.training.adapter_run import make_run, plan_of

SIZE = 2


class Left:
    """What the processes of a group left behind."""

    def __init__(self, folder: Path, codes: list[int]) -> None:
        self.folder, self.codes = folder, codes

    def __call__(self, name: str) -> list[Any]:
        """What came of a scenario, by rank."""
        return [torch.load(self.folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(SIZE)]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("group")
    make_run(str(folder / "run"))
    command = [sys.executable, process_group_program.__file__]
    with (folder / "log").open("w") as log:
        processes = [
            subprocess.Popen([*command, str(rank), str(SIZE), str(folder)], stdout=log, stderr=log) for rank in range(SIZE)
        ]
        codes = [process.wait(250) for process in processes]
    assert codes[0] == 0, (folder / "log").read_text()
    return Left(folder, codes)


@pytest.mark.parametrize("name", process_group_program.SETTINGS)
def test_a_group_trains_the_adapter_of_one_process(left: Left, name: str) -> None:
    expected = process_group_program.trained(name, SingleProcess())
    for found in left(name):
        assert len(found["history"]) == len(expected["history"])
        assert found["steps"] == pytest.approx(expected["steps"], abs=1e-5)
        for a, b in zip(found["history"], expected["history"], strict=True):
            assert a == pytest.approx(b, abs=1e-5)
        for key in expected["adapter"]:
            torch.testing.assert_close(found["adapter"][key], expected["adapter"][key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [*process_group_program.SETTINGS, "resumed"])
def test_every_worker_has_the_same_adapter_bit_for_bit(left: Left, name: str) -> None:
    first, second = left(name)
    assert first["history"] == second["history"]
    assert all(torch.equal(first["adapter"][key], second["adapter"][key]) for key in first["adapter"])


def test_a_resumed_group_gives_the_bits_of_an_uninterrupted_one(left: Left) -> None:
    straight, resumed = left("plain")[0], left("resumed")[0]
    assert resumed["history"] == straight["history"]
    assert all(torch.equal(resumed["adapter"][key], straight["adapter"][key]) for key in straight["adapter"])


def test_who_is_not_told_of_a_group_trains_alone(left: Left) -> None:
    found, expected = left("alone")[0], process_group_program.trained("plain", SingleProcess())
    assert all(torch.equal(found["adapter"][key], expected["adapter"][key]) for key in expected["adapter"])


def test_the_first_worker_alone_keeps_the_state_and_publishes(left: Left) -> None:
    assert left("calls") == [[1, 2, 3], []]
    assert left("published") == [12, 12]
    manifest = plan_of(RunDir(str(left.folder / "run"))).artifact.verify()
    assert {"adapter_model.safetensors", "history.json"} <= {output.path for output in manifest.outputs}


def test_workers_at_different_epochs_do_not_begin(left: Left) -> None:
    assert (
        left("apart")
        == ["ProcessGroupError: workers of one training go on from different epochs, [0, 1]; start them all again"] * 2
    )


def test_a_first_worker_that_cannot_write_ends_them_all(left: Left) -> None:
    first, second = left("failed")
    assert first == "OSError: no space left"
    assert second.startswith("ProcessGroupError: the first worker")


def test_a_worker_that_dies_ends_the_others(left: Left) -> None:
    assert left.codes == [0, 7]
    assert not (left.folder / "died-1.pt").exists()
    found = torch.load(left.folder / "died-0.pt")
    assert found != "nothing"
    assert "GroupError" not in found  # torch's own words: the connection is gone


@given(st.lists(st.integers(1, 500), max_size=40), st.integers(1, 5))
def test_shares_hold_every_row_once_and_weigh_about_the_same(lengths: list[int], size: int) -> None:
    shares = []
    for rank in range(size):
        group = object.__new__(ProcessGroup)
        group.rank, group.world_size = rank, size
        shares.append(group.local_indices(lengths))
    assert sorted(index for share in shares for index in share) == list(range(len(lengths)))
    weights = [sum(lengths[i] for i in share) for share in shares]
    assert max(weights) - min(weights) <= max(lengths, default=0)


def test_without_torch_distributed_there_is_no_group() -> None:
    assert isinstance(current_group(torch.device("cpu")), SingleProcess)
    with pytest.raises(ModelError, match="init_process_group"):
        ProcessGroup(torch.device("cpu"))
