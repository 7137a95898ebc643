"""Several processes train one adapter: equal to that of one process, equal on all of them, and a failure ends all."""

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


class GroupResults:
    """Results that the processes of a group stored."""

    def __init__(self, folder: Path, codes: list[int]) -> None:
        self.folder, self.codes = folder, codes

    def __call__(self, name: str) -> list[Any]:
        """The result of a scenario, by rank."""
        return [torch.load(self.folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(SIZE)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> GroupResults:
    folder = tmp_path_factory.mktemp("group")
    make_run(str(folder / "run"))
    command = [sys.executable, process_group_program.__file__]
    with (folder / "log").open("w") as log:
        processes = [
            subprocess.Popen([*command, str(rank), str(SIZE), str(folder)], stdout=log, stderr=log) for rank in range(SIZE)
        ]
        codes = [process.wait(250) for process in processes]
    assert codes[0] == 0, (folder / "log").read_text()
    return GroupResults(folder, codes)


@pytest.mark.slow
@pytest.mark.parametrize("name", process_group_program.SETTINGS)
def test_a_group_trains_the_adapter_of_one_process(results: GroupResults, name: str) -> None:
    expected = process_group_program.train(name, SingleProcess())
    for found in results(name):
        assert len(found["history"]) == len(expected["history"])
        assert found["steps"] == pytest.approx(expected["steps"], abs=1e-5)
        for a, b in zip(found["history"], expected["history"], strict=True):
            assert a == pytest.approx(b, abs=1e-5)
        for key in expected["adapter"]:
            torch.testing.assert_close(found["adapter"][key], expected["adapter"][key], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*process_group_program.SETTINGS, "resumed"])
def test_every_worker_has_the_same_adapter_bit_for_bit(results: GroupResults, name: str) -> None:
    first, second = results(name)
    assert first["history"] == second["history"]
    assert all(torch.equal(first["adapter"][key], second["adapter"][key]) for key in first["adapter"])


@pytest.mark.slow
def test_a_resumed_group_gives_the_bits_of_an_uninterrupted_one(results: GroupResults) -> None:
    straight, resumed = results("plain")[0], results("resumed")[0]
    assert resumed["history"] == straight["history"]
    assert all(torch.equal(resumed["adapter"][key], straight["adapter"][key]) for key in straight["adapter"])


@pytest.mark.slow
def test_training_is_single_process_without_a_group_argument(results: GroupResults) -> None:
    found, expected = results("alone")[0], process_group_program.train("plain", SingleProcess())
    assert all(torch.equal(found["adapter"][key], expected["adapter"][key]) for key in expected["adapter"])


@pytest.mark.slow
def test_only_the_first_worker_stores_the_state_and_publishes(results: GroupResults) -> None:
    assert results("calls") == [[1, 2, 3], []]
    assert results("published") == [12, 12]
    manifest = plan_of(RunDir(str(results.folder / "run"))).artifact.verify()
    assert {"adapter_model.safetensors", "history.json"} <= {output.path for output in manifest.outputs}


@pytest.mark.slow
def test_workers_at_different_epochs_do_not_start(results: GroupResults) -> None:
    assert (
        results("apart")
        == ["ProcessGroupError: workers of one training resume from different epochs, [0, 1]; restart all of them"] * 2
    )


@pytest.mark.slow
def test_a_first_worker_that_cannot_write_ends_all_workers(results: GroupResults) -> None:
    first, second = results("failed")
    assert first == "OSError: no space left"
    assert second.startswith("ProcessGroupError: the first worker")


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_others(results: GroupResults) -> None:
    assert results.codes == [0, 7]
    assert not (results.folder / "died-1.pt").exists()
    found = torch.load(results.folder / "died-0.pt")
    assert found != "nothing"
    assert "GroupError" not in found  # torch's own error: the connection is closed


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
