"""What is told of an error that happened on a worker; starting Ray itself is tested under tests/ray."""

from __future__ import annotations

import os

import pytest

from compass_ray import ray_session

TASK = """\x1b[36mray::_cluster()\x1b[39m (pid=7, ip=192.0.2.1)
  File "/somewhere/stages/cluster.py", line 45, in _cluster
    vectors = _vectors(run, pool)
              ^^^^^^^^^^^^^^^^^^^
  File "/somewhere/stages/cluster.py", line 68, in _vectors
    raise ArtifactError("...")
compass_ray.artifacts.ArtifactError: embeddings/pool does not match the pool; run again with --force embed"""
TRAINING = f"Training failed due to worker errors:\n[Rank 0 Error Snippet]:\nTraceback (most recent call last):\n{TASK}\n\n"


@pytest.mark.parametrize("text", [TASK, TRAINING])
def test_a_worker_s_error_is_told_without_its_frames(text: str) -> None:
    told = ray_session.told(RuntimeError(text))
    assert told == "embeddings/pool does not match the pool; run again with --force embed"


def test_all_lines_of_a_worker_s_error_are_told() -> None:
    assert ray_session.told(RuntimeError(f"{TASK}\nand more\nof it")).endswith("--force embed\nand more\nof it")


@pytest.mark.parametrize(
    "text", ["", "plain", "two\nlines", "ValueError: as it stands", 'a\n  File "x", line 1, in y\n    z()\n']
)
def test_what_has_no_frames_before_it_is_told_as_it_is(text: str) -> None:
    assert ray_session.told(RuntimeError(text)) == text.strip()


def test_a_setting_of_ray_that_the_user_made_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("RAY_DATA_DISABLE_PROGRESS_BARS", raising=False)
    ray_session.prepare_environment()
    assert (os.environ["RAY_USAGE_STATS_ENABLED"], os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"]) == ("1", "1")


def test_what_ray_data_adds_to_an_error_of_ours_is_left_out() -> None:
    added = "The above exception was the direct cause of the following exception:\n\nray.exceptions.UserCodeException: UDF failed"
    assert ray_session.told(RuntimeError(f"{TASK}\n\n{added}")) == ray_session.told(RuntimeError(TASK))
