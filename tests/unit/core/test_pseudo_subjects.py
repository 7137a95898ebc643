"""Pseudo-subjects: the vote of near guide prompts of the same cluster, or none."""

import numpy as np

from compass_ray.core.pseudo_subjects import pseudo_subjects

GUIDE = np.array([[1, 0], [0.98, 0.2], [0.95, 0.31], [0, 1]], np.float32)
GUIDE /= np.linalg.norm(GUIDE, axis=1, keepdims=True)


def test_most_of_the_nearest_name_the_subject() -> None:
    found = pseudo_subjects(GUIDE[:1], [0], GUIDE, [0, 0, 0, 0], ["law", "art", "art", "maths"], 1)
    assert found == ["art"]


def test_only_prompts_of_the_same_cluster_vote_and_noise_gets_none() -> None:
    found = pseudo_subjects(GUIDE[[0, 0, 0]], [0, 1, -1], GUIDE, [0, 1, 1, 1], ["law", "art", "art", "maths"], 2)
    assert found == ["law", "art", None]


def test_a_row_without_a_near_prompt_gets_none() -> None:
    assert pseudo_subjects(GUIDE[3:], [0], GUIDE[:3], [0, 0, 0], ["law"] * 3, 1) == [None]
    assert pseudo_subjects(GUIDE[3:], [0], GUIDE[:3], [0, 0, 0], ["law"] * 3, 1, similarity=0.0) == ["law"]


def test_prompts_without_a_subject_do_not_vote() -> None:
    assert pseudo_subjects(GUIDE[:1], [0], GUIDE[:2], [0, 0], [None, "art"], 1) == ["art"]
